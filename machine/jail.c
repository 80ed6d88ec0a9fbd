/* QEMU, shut in: whoever breaks out of the guest into it finds an unprivileged process with a
 * uid of its own, no way to more, no network, no other process, and next to no files. What it
 * works with it has as descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"

enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS };

static int report; /* where the child says why it cannot execute */

static _Noreturn void give_up(const char *what) {
    dprintf(report, "%s: %s", what, strerror(errno));
    _exit(127);
}

static void keep_descriptors(const struct jail *jail) {
    if (dup2(jail->words, 1) < 0 || dup2(jail->words, 2) < 0)
        give_up("its standard output");
    if (close_range(3, (unsigned)jail->first - 1, CLOSE_RANGE_CLOEXEC) < 0 ||
        close_range((unsigned)jail->last + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        give_up("its descriptors");
    for (int fd = jail->first; fd <= jail->last; fd++)
        if (fcntl(fd, F_SETFD, 0) < 0)
            give_up("its descriptors");
}

static void be_killed_first(void) { /* whatever the daemon, or who started that, has set */
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "0", 1) != 1)
        give_up("oom_score_adj");
    close(fd);
}

static void drop_privileges(uid_t uid) {
    const struct rlimit none = {0, 0};

    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        give_up("its limits");
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability) < 0)
            give_up("its capabilities");
    if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
        give_up("its user");
    if (setuid(0) == 0 || geteuid() != uid)
        give_up("its user stayed root");
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* without a supervisor nobody watches over it */
}

static void forget_signals(void) {
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void become(const struct jail *jail) {
    char *const environment[] = {"PATH=/usr/bin:/bin", "TMPDIR=/tmp", NULL};

    if (!join_cgroups())
        give_up("its cgroup");
    keep_descriptors(jail);
    be_killed_first();
    const char *problem = root_enter(jail->uid, jail->kvm);
    if (problem)
        give_up(problem);
    if (unshare(CLONE_NEWCGROUP) < 0 || sethostname("machine", 7) < 0)
        give_up("its namespaces");
    drop_privileges(jail->uid);
    umask(077);
    setsid();
    forget_signals();
    execve(jail->argv[0], jail->argv, environment);
    give_up(jail->argv[0]);
}

pid_t jail_start(const struct jail *jail, char *why, size_t size) {
    int ends[2];

    snprintf(why, size, "it cannot be started");
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    report = ends[1];
    pid_t pid = fork_into(tree, NAMESPACES);
    if (pid == 0)
        become(jail);
    if (pid < 0)
        snprintf(why, size, "its namespaces: %s", strerror(errno));
    close(ends[1]);
    ssize_t length = read(ends[0], why, size - 1); /* nothing, when it has executed */
    close(ends[0]);
    if (pid > 0 && length > 0) {
        why[length] = '\0';
        waitpid(pid, NULL, 0);
        return -1;
    }
    return pid;
}
