/* What the supervisors of containers and of machines have in common. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "host.h"

enum { BACKLOG = 64 };

static int cgroups[CGROUPS]; /* the instance's tasks files, open; -1 ends them */
int tree = -1;

void entrances_add(struct files *files, const char *path) {
    if (files->count == CGROUPS - 1) {
        errno = E2BIG;
        die("cgroups");
    }
    files->paths[files->count++] = path;
}

void enter_cgroups(const struct entrances *entrances) {
    for (int n = 0; n < entrances->own.count; n++) {
        int fd = open(entrances->own.paths[n], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1)
            die(entrances->own.paths[n]);
        close(fd);
    }
    for (int n = 0; n < CGROUPS; n++)
        cgroups[n] = -1;
    if (entrances->tree &&
        (tree = open(entrances->tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        die(entrances->tree);
    for (int n = 0; n < entrances->inner.count; n++)
        if ((cgroups[n] = open(entrances->inner.paths[n], O_WRONLY | O_CLOEXEC)) < 0)
            die(entrances->inner.paths[n]);
}

bool join_cgroups(void) {
    for (int n = 0; n < CGROUPS && cgroups[n] >= 0; n++)
        if (write(cgroups[n], "0", 1) != 1)
            return false;
    return true;
}

pid_t fork_into(int cgroup, uint64_t flags) {
    struct clone_args args = {.exit_signal = SIGCHLD, .flags = flags};
    if (cgroup < 0 && !flags)
        return fork();
    if (cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (unsigned)cgroup;
    }
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

void move_into(const char *directory) {
    int cgroup = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    pid_t pid = cgroup < 0 ? -1 : fork_into(cgroup, 0);

    if (pid < 0)
        die(directory);
    if (pid > 0)
        _exit(0);
    close(cgroup);
}

int watch_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (const int *number = (int[]){SIGHUP, SIGINT, SIGTERM, SIGPIPE, 0}; *number; number++)
        signal(*number, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        die("signals");
    return fd;
}

int listen_at(const char *name, int type) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    unlink(name);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, BACKLOG) < 0)
        die(name);
    return fd;
}

bool packet_send(int fd, char type, const void *data, size_t length) {
    struct iovec parts[2] = {{&type, 1}, {(void *)data, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

void leave_file(const char *name, const char *text, size_t length) {
    char new[NAME_MAX];
    snprintf(new, sizeof new, "%s.new", name);
    int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, text, length) == (ssize_t)length)
        rename(new, name);
    if (fd >= 0)
        close(fd);
}

void leave_exit_code(int code) {
    char text[16];
    int length = snprintf(text, sizeof text, "%d\n", code);
    leave_file("exit", text, (size_t)length);
}
