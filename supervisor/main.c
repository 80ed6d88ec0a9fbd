/* The supervisor of one container: starts it through the OCI runtime, keeps its log, hands out
 * its standard streams, starts further processes in it, and leaves its exit code, whether the
 * daemon lives or not. protocol.h says how it is talked to.
 *
 *   sublet-supervisor OPTIONS -- RUNTIME ARGUMENT…
 *   sublet-supervisor namespaces user|network
 *
 * The runtime is told to create the container, and to leave the process's pid in DIRECTORY/pid;
 * the supervisor opens the gate then. Descriptor 3 is the first connection, 4 the mount namespace
 * that runtimes work in.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor.h"

enum { FIRST = 3, NAMESPACE = 4, OWN = 5, COMPLAINT = 8192 };

struct options {
    const char *directory, *log, *gate;
    struct entrances cgroups;
    int log_files;
    long long log_size;
    bool terminal, input;
    char **runtime;
};

static struct task container;
static bool running;
static int signals = -1, listener = -1, console = -1;

_Noreturn void die(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "the supervisor: %s: %s", what, strerror(errno));
    client_say(&clients[0], FAILED, text, (size_t)length);
    exit(1);
}

static struct options parse(int argc, char **argv) {
    static const struct option names[] = {
        {"directory", required_argument, NULL, 'd'}, {"log", required_argument, NULL, 'l'},
        {"log-size", required_argument, NULL, 's'},  {"log-files", required_argument, NULL, 'f'},
        {"own-cgroup", required_argument, NULL, 'o'}, {"cgroup", required_argument, NULL, 'c'},
        {"gate", required_argument, NULL, 'g'},
        {"own-tree", required_argument, NULL, 'O'},  {"tree", required_argument, NULL, 'C'},
        {"terminal", no_argument, NULL, 't'},        {"input", no_argument, NULL, 'i'},
        {NULL, 0, NULL, 0}};
    struct options options = {.log_files = 1};
    int option;

    while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        switch (option) {
        case 'd': options.directory = optarg; break;
        case 'l': options.log = optarg; break;
        case 's': options.log_size = atoll(optarg); break;
        case 'f': options.log_files = atoi(optarg); break;
        case 'o': entrances_add(&options.cgroups.own, optarg); break;
        case 'c': entrances_add(&options.cgroups.inner, optarg); break;
        case 'O': options.cgroups.own_tree = optarg; break;
        case 'C': options.cgroups.tree = optarg; break;
        case 'g': options.gate = optarg; break;
        case 't': options.terminal = true; break;
        case 'i': options.input = true; break;
        default: errno = EINVAL; die("its options");
        }
    }
    options.runtime = argv + optind;
    if (!options.directory || !options.runtime[0]) {
        errno = EINVAL;
        die("its options");
    }
    return options;
}

static void set_up(const struct options *options) {
    int fds[3];

    signals = watch_signals();
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        die("signals");
    int directory = open(options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        die(options->directory);
    enter_cgroups(&options->cgroups);
    if (options->log && log_open(options->log, options->log_size, options->log_files) < 0)
        die(options->log);
    if (setns(NAMESPACE, CLONE_NEWNS) < 0 || fchdir(directory) < 0)
        die("its mount namespace");
    close(NAMESPACE);
    close(directory); /* it is the working directory now */
    umask(077);
    listener = listen_at("socket", SOCK_SEQPACKET);
    if (options->terminal)
        console = listen_at("console", SOCK_STREAM);
    if (streams_open(fds, options->input, options->terminal) < 0)
        die("pipes");
    client_read(&clients[0]); /* it may attach before anything can be missed */
    if (task_start(&container, "pid", options->gate, options->runtime, fds, 3) < 0)
        die(options->runtime[0]);
    for (int n = 0; n < 3; n++)
        if (n == 0 || fds[n] != fds[n - 1])
            close(fds[n]);
}

/* The terminal's master end, from the runtime (OCI runtimes' --console-socket). */
static void take_terminal(void) {
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char byte[64];
    struct iovec part = {byte, sizeof byte};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room};
    message.msg_controllen = sizeof control.room;

    int fd = accept4(console, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (head && head->cmsg_type == SCM_RIGHTS) {
        int master;
        memcpy(&master, CMSG_DATA(head), sizeof master);
        streams_terminal(master);
        close(console);
        console = -1;
        unlink("console");
    }
    close(fd);
}

static _Noreturn void finish(int code) {
    leave_exit_code(code);
    streams_finish();
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->attached)
            client_say_number(client, EXITED, code);
    exit(0);
}

static _Noreturn void give_up(void) {
    char text[COMPLAINT];
    client_say(&clients[0], FAILED, text, streams_complaint(text, sizeof text));
    exit(1);
}

static void look_at_container(void) {
    int code = 0;
    enum outcome outcome;

    if (console >= 0)
        take_terminal();
    while ((outcome = task_look(&container, &code)) != UNCHANGED) {
        if (outcome == HAS_ENDED)
            finish(code);
        if (outcome == HAS_FAILED)
            give_up();
        running = true;
        int32_t pids[] = {container.process, getpid()};
        if (!client_say(&clients[0], STARTED, pids, sizeof pids))
            task_abandon(&container);
    }
}

static void look_at_execution(struct client *client) {
    int code = 0;
    enum outcome outcome;

    while ((outcome = task_look(&client->task, &code)) != UNCHANGED) {
        if (outcome == HAS_STARTED)
            client_say_number(client, STARTED, client->task.process);
        else if (outcome == HAS_FAILED)
            client_say(client, FAILED, NULL, 0);
        else
            client_say_number(client, EXITED, code);
    }
}

static bool runtimes_work(void) {
    for (const struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->task.state == STARTING)
            return true;
    return container.state == STARTING;
}

static bool known(pid_t pid) {
    for (const struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->task.process == pid)
            return true;
    return container.process == pid;
}

/* Children that nobody asked for: what a runtime left, and orphans. While a runtime works, one
 * of them may be the process that it starts. */
static void reap_strays(void) {
    siginfo_t info = {.si_pid = 0};

    if (runtimes_work())
        return;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid > 0) {
        if (known(info.si_pid)) { /* it has just ended: look again */
            kill(getpid(), SIGCHLD);
            return;
        }
        waitpid(info.si_pid, NULL, 0);
        info.si_pid = 0;
    }
}

static void look_at_tasks(void) {
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->task.state != NONE)
            look_at_execution(client);
    look_at_container();
    reap_strays();
}

static bool hasty(void) {
    if (container.state == EXECUTING)
        return true;
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->task.state == EXECUTING)
            return true;
    return false;
}

static void turn(void) {
    struct pollfd set[OWN + 1 + CLIENTS];
    struct signalfd_siginfo info;
    bool blocked = input_fd() >= 0;

    set[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    set[1] = (struct pollfd){.fd = running ? listener : -1, .events = POLLIN};
    set[2] = (struct pollfd){.fd = console, .events = POLLIN};
    for (int n = 0; n < STREAMS; n++) {
        bool ready = running && stream_delivered(&streams[n]);
        set[3 + n] = (struct pollfd){.fd = ready ? streams[n].fd : -1, .events = POLLIN};
    }
    set[OWN] = (struct pollfd){.fd = input_fd(), .events = POLLOUT};
    for (int n = 0; n < CLIENTS; n++) {
        short events = (short)((clients[n].attached && blocked ? 0 : POLLIN) |
                               (clients[n].owed ? POLLOUT : 0));
        set[OWN + 1 + n] = (struct pollfd){.fd = events ? clients[n].fd : -1, .events = events};
    }
    const struct timespec soon = {.tv_nsec = 200000};
    if (ppoll(set, OWN + 1 + CLIENTS, hasty() ? &soon : NULL, NULL) < 0)
        return;
    while (read(signals, &info, sizeof info) > 0) {
    }
    for (int n = 0; n < CLIENTS; n++) {
        short events = set[OWN + 1 + n].revents;
        if (events & POLLOUT || (events & POLLHUP && clients[n].owed))
            client_give(&clients[n], clients[n].owed);
        if (events & (POLLIN | POLLHUP | POLLERR) && !(clients[n].attached && input_fd() >= 0) &&
            clients[n].fd >= 0)
            client_read(&clients[n]);
    }
    if (clients[0].fd < 0 && !running)
        task_abandon(&container);
    if (set[OWN].revents)
        input_write();
    for (int n = 0; n < STREAMS; n++)
        if (set[3 + n].revents)
            stream_pump(&streams[n]);
    if (set[1].revents) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && !client_add(fd))
            close(fd);
    }
    look_at_tasks();
}

/* Make namespaces, say which error that gave, and hold them until the daemon has bound them. */
static int hold_namespaces(const char *kind) {
    int flags = CLONE_NEWUSER | (strcmp(kind, "network") == 0 ? CLONE_NEWNET : 0);
    int32_t problem = unshare(flags) < 0 ? errno : 0;
    char end;

    if (send(FIRST, &problem, sizeof problem, MSG_NOSIGNAL) < 0)
        return 1;
    return recv(FIRST, &end, 1, 0) < 0;
}

int main(int argc, char **argv) {
    close_range(OWN, ~0U, 0); /* what the daemon, or who started that, has let through */
    if (argc == 3 && strcmp(argv[1], "namespaces") == 0)
        return hold_namespaces(argv[2]);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        client->fd = -1;
    client_add(FIRST);
    fcntl(FIRST, F_SETFD, FD_CLOEXEC);
    fcntl(FIRST, F_DUPFD_CLOEXEC, 16); /* whoever waits for the end of all waits for this one */
    fcntl(NAMESPACE, F_SETFD, FD_CLOEXEC);
    struct options options = parse(argc, argv);
    if (options.cgroups.own_tree)
        move_into(options.cgroups.own_tree);
    set_up(&options);
    for (;;)
        turn();
}
