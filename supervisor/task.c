/* A process of the container, and the runtime that starts it. The runtime detaches from it and
 * ends; its process then is the supervisor's child (PR_SET_CHILD_SUBREAPER, prctl(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor.h"

enum { PF_FORKNOEXEC = 0x40 }; /* linux/sched.h: it has not executed anything since its fork */

static void say(const char *what) {
    dprintf(2, "%s: %s\n", what, strerror(errno));
    _exit(127);
}

static void become(char *const argv[], const int *fds, int count) {
    int moved[4];
    sigset_t none;

    for (int n = 0; n < count; n++) /* out of the way of each other */
        if ((moved[n] = fcntl(fds[n], F_DUPFD_CLOEXEC, 16)) < 0)
            _exit(127);
    for (int n = 0; n < count; n++)
        if (dup2(moved[n], n) < 0)
            _exit(127);
    if (!join_cgroups())
        say("the container's cgroup cannot be entered");
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    execv(argv[0], argv);
    say(argv[0]);
}

int task_start(struct task *task, const char *pid_file, const char *gate, char *const argv[],
               const int *fds, int count) {
    *task = (struct task){.state = STARTING, .gate = gate, .gate_fd = -1};
    task->pid_file = strdup(pid_file);
    task->runtime = task->pid_file ? fork_into(tree, 0) : -1;
    if (task->runtime == 0)
        become(argv, fds, count);
    return task->runtime < 0 ? -1 : 0;
}

/* The pid that the runtime left; the file has served its purpose then. */
static pid_t left(const char *path) {
    char text[16] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t length = read(fd, text, sizeof text - 1);
        text[length > 0 ? length : 0] = '\0';
        close(fd);
        unlink(path);
    }
    return (pid_t)strtol(text, NULL, 10);
}

/* Whether the process has become the command (proc(5), stat: the flags are field 9). */
static bool executed(pid_t pid) {
    char path[32], text[256];
    unsigned flags = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    char *end = strrchr(text, ')'); /* the name before it may hold anything */
    if (!end || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
        return false;
    return !(flags & PF_FORKNOEXEC);
}

/* What the runtimes' own `start` does, without the milliseconds that it takes to load one: crun's
 * process waits until it can read a byte from exec.fifo, runc's until somebody else has opened
 * it; what they call `created` is `running` once it is gone. */
static bool open_gate(struct task *task) {
    if (!task->gate)
        return true;
    streams_forget();
    task->gate_fd = open(task->gate, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return task->gate_fd >= 0 && unlink(task->gate) == 0 && write(task->gate_fd, "", 1) == 1;
}

static void forget(struct task *task) {
    free(task->pid_file);
    if (task->gate_fd >= 0)
        close(task->gate_fd);
    *task = (struct task){.state = NONE, .gate_fd = -1};
}

static enum outcome started(struct task *task) {
    int status;

    if (waitpid(task->runtime, &status, WNOHANG) != task->runtime)
        return UNCHANGED;
    task->process = left(task->pid_file);
    if (status == 0 && task->process > 0) {
        task->state = EXECUTING;
        if (task->unwanted || !open_gate(task))
            task_signal(task, SIGKILL);
        return UNCHANGED;
    }
    if (task->process > 0)
        task_signal(task, SIGKILL);
    forget(task);
    return HAS_FAILED;
}

static bool ended(const struct task *task) {
    siginfo_t info = {.si_pid = 0};
    int wanted = WEXITED | WNOHANG | WNOWAIT;
    return waitid(P_PID, (id_t)task->process, &info, wanted) < 0 || info.si_pid > 0;
}

enum outcome task_look(struct task *task, int *code) {
    int status = 0;

    if (task->state == STARTING) {
        enum outcome outcome = started(task);
        if (task->state != EXECUTING)
            return outcome;
    }
    if (task->state == NONE)
        return UNCHANGED;
    bool over = ended(task); /* asked first: what is over does not change any more */
    if (task->state == EXECUTING) {
        if (executed(task->process)) {
            task->state = RUNNING;
            if (task->gate_fd >= 0)
                close(task->gate_fd);
            task->gate_fd = -1;
            return HAS_STARTED;
        }
        if (!over)
            return UNCHANGED;
    }
    if (!over)
        return UNCHANGED;
    waitpid(task->process, &status, 0);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    enum outcome outcome = task->state == RUNNING ? HAS_ENDED : HAS_FAILED;
    forget(task);
    return outcome;
}

void task_signal(const struct task *task, int number) {
    if (task->process > 0) /* our child, not reaped: the pid is nobody else's */
        kill(task->process, number);
}

/* With its process group: that which it leads, or its runtime made, since `become` at the latest. */
void task_abandon(struct task *task) {
    pid_t group = task->process > 0 ? getpgid(task->process) : 0;

    task->unwanted = true;
    if (group > 0 && group != getpgrp())
        kill(-group, SIGKILL);
    task_signal(task, SIGKILL);
}
