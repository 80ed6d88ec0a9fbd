/* `files VERB …`: copies out of and into the instance's root, what differs from its image, and its
 * processes. It is run in a child of the agent, without execve(2), as the agent's program is no
 * file in there; in containers by inside/main.c.
 *
 *   look PATH [follow]             standard output: `directory|file|nothing PATH`, what it leads to
 *   send PATH TOP [follow]         standard output: an archive in which PATH is called TOP
 *   root [PATH…]                   an archive of the root without what is mounted in it, and with
 *                                  what the image has in place of the files PATH
 *   receive PARENT NAME STRIP [keep]  standard input: an archive; output: `MADE LEFT-OUT`. The
 *                                  first STRIP components of names give way to NAME, which may be
 *                                  empty; `keep`: owners are the archive's, not root
 *   compare UPPER LOWER            see copy_diff.c
 *   fetch PATH, store PATH MODE, stat PATH, list PATH DEPTH, make PATH, remove PATH,
 *   rename PATH TO                 see copy_paths.c; MODE in octal, or -1
 *   watch PATH [recursive]         see copy_watch.c
 *   processes                      see copy_top.c
 *
 * The exit code is 0, or 1 with what was wrong on standard error: see copy_say.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "copy.h"
#include "guest.h"

/* With no descriptor but the standard streams and the initramfs; one for each directory on a way. */
static void prepare(void) {
    const struct rlimit many = {2 * DEPTH_MOST + 64, 2 * DEPTH_MOST + 64};

    if (old_root >= 0 && old_root != 3) {
        dup3(old_root, 3, O_CLOEXEC);
        old_root = 3;
    }
    close_range(old_root < 0 ? 3 : 4, ~0U, 0);
    setrlimit(RLIMIT_NOFILE, &many);
    signal(SIGPIPE, SIG_DFL);
}

/* What is done with single files; false where that is not meant. */
static bool single(const char *verb, int count, char **argv) {
    if (strcmp(verb, "fetch") == 0 && count == 3)
        copy_fetch(argv[2]);
    else if (strcmp(verb, "store") == 0 && count == 4)
        copy_store(argv[2], argv[3][0] == '-' ? -1 : (int)strtol(argv[3], NULL, 8));
    else if (strcmp(verb, "stat") == 0 && count == 3)
        copy_stat(argv[2]);
    else if (strcmp(verb, "list") == 0 && count == 4)
        copy_list(argv[2], atoi(argv[3]));
    else if (strcmp(verb, "make") == 0 && count == 3)
        copy_make(argv[2]);
    else if (strcmp(verb, "remove") == 0 && count == 3)
        copy_remove(argv[2]);
    else if (strcmp(verb, "rename") == 0 && count == 4)
        copy_rename(argv[2], argv[3]);
    else if (strcmp(verb, "watch") == 0 && count >= 3)
        copy_watch(argv[2], count > 3);
    else
        return false;
    return true;
}

int copy_main(int count, char **argv) {
    const char *verb = count > 1 ? argv[1] : "", *last = count > 2 ? argv[count - 1] : "";

    prepare();
    if (single(verb, count, argv))
        return 0;
    if (strcmp(verb, "look") == 0 && count >= 3)
        copy_look(argv[2], count > 3 && strcmp(last, "follow") == 0);
    else if (strcmp(verb, "send") == 0 && count >= 4)
        copy_send(argv[2], count > 4 && strcmp(last, "follow") == 0, argv[3]);
    else if (strcmp(verb, "root") == 0)
        copy_root(argv + 2);
    else if (strcmp(verb, "receive") == 0 && count >= 5)
        copy_receive(argv[2], argv[3], atoi(argv[4]), count > 5 && strcmp(last, "keep") == 0);
    else if (strcmp(verb, "compare") == 0 && count == 4)
        copy_compare(argv[2], argv[3]);
    else if (strcmp(verb, "processes") == 0)
        copy_processes();
    else
        give_up(EINVAL, "files");
    return 0;
}
