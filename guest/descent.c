/* What a process has started, killed with it: as drivers/descent.py does with containers'. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

enum { FAMILY_MOST = 4096, ROUNDS = 20, WITHIN = 5 }; /* seconds */

static pid_t family[FAMILY_MOST];
static size_t count;

static bool belongs(pid_t pid) {
    for (size_t n = 0; n < count; n++)
        if (family[n] == pid)
            return true;
    return false;
}

/* Parent and session of a process (proc(5), stat); false when it has ended. */
static bool facts(const char *name, pid_t *parent, pid_t *session) {
    char path[300], text[1024], state;

    snprintf(path, sizeof path, "/proc/%s/stat", name);
    read_file(path, text, sizeof text);
    const char *rest = strrchr(text, ')');
    return rest && sscanf(rest + 1, " %c %d %*d %d", &state, parent, session) == 3 &&
           state != 'Z' && state != 'X';
}

/* Stop those of the family that are not known yet, so that they fork no more; whether there were. */
static bool look(pid_t first) {
    DIR *all = opendir("/proc");
    size_t before = count;

    for (struct dirent *each; all && count < FAMILY_MOST && (each = readdir(all));) {
        pid_t pid = (pid_t)strtol(each->d_name, NULL, 10), parent, session;
        if (!isdigit((unsigned char)each->d_name[0]) || pid == 1 || belongs(pid) ||
            !facts(each->d_name, &parent, &session))
            continue;
        if (pid == first || session == first || belongs(parent)) {
            family[count++] = pid;
            kill(pid, SIGSTOP);
        }
    }
    if (all)
        closedir(all);
    return count > before;
}

static _Noreturn void search(pid_t first) {
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGALRM, SIG_DFL);
    alarm(WITHIN);
    kill(first, SIGSTOP);
    for (int round = 0; round < ROUNDS && look(first); round++)
        continue;
    for (size_t n = 0; n < count; n++)
        kill(family[n], SIGKILL);
    _exit(0);
}

static void kill_group(pid_t first) {
    kill(-first, SIGKILL);
    kill(first, SIGKILL);
}

/* By a child, and one of its own: what is mounted at /proc is the instance's affair. */
void descent_kill(pid_t first) {
    pid_t child = fork(), searching;

    if (child < 0)
        kill_group(first);
    if (child != 0)
        return;
    if ((searching = fork()) == 0)
        search(first);
    if (searching > 0)
        waitpid(searching, NULL, 0);
    kill_group(first);
    _exit(0);
}
