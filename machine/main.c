/* The supervisor of one machine: starts QEMU, shut in, talks with the agent in it, keeps its log
 * and the end of its console, starts further processes in it through the agent, and leaves its
 * exit code, whether the daemon lives or not. protocol.h says how it is talked to, frames.h how
 * it talks to the guest.
 *
 *   sublet-machine OPTIONS -- QEMU ARGUMENT…
 *   sublet-machine memory PID INODE OUTPUT
 *
 * Descriptor 3 is the first connection; those from 4 on are QEMU's, and keep their numbers
 * (--fd=4 --fd=5 …). In QEMU's arguments @agent@, @console@ and @qmp@ stand for the numbers of
 * three sockets more: two that are connected, and one that listens (`qmp` in the directory).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"

enum { FIRST = 3, PASSED = 4, PASSED_MOST = 512 };

struct options {
    const char *directory, *log;
    struct entrances cgroups;
    int log_files, passed;
    long long log_size;
    bool console_output;
    struct plan plan;
    struct jail jail;
};

_Noreturn void die(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "the supervisor: %s: %s", what, strerror(errno));
    client_say(&clients[0], FAILED, text, (size_t)length);
    exit(1);
}

static _Noreturn void misuse(const char *what) {
    errno = EINVAL;
    die(what);
}

static unsigned number(const char *text, unsigned least, unsigned most) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*end || end == text || *text == '-' || value < least || value > most)
        misuse(text);
    return (unsigned)value;
}

static void pass(struct options *options, const char *text) {
    if (options->passed == PASSED_MOST || (int)number(text, PASSED, INT32_MAX) != PASSED + options->passed ||
        fcntl(PASSED + options->passed, F_GETFD) < 0)
        misuse("--fd has to name 4, 5 and so on");
    options->passed++;
}

static void take_option(struct options *options, int option) {
    switch (option) {
    case 'd': options->directory = optarg; break;
    case 'l': options->log = optarg; break;
    case 's': options->log_size = atoll(optarg); break;
    case 'n': options->log_files = atoi(optarg); break;
    case 'o': entrances_add(&options->cgroups.own, optarg); break;
    case 'c': entrances_add(&options->cgroups.inner, optarg); break;
    case 'O': options->cgroups.own_tree = optarg; break;
    case 'C': options->cgroups.tree = optarg; break;
    case 'u': options->jail.uid = number(optarg, 1, UINT32_MAX - 1); break;
    case 'k': options->jail.kvm = true; break;
    case 'r': resumed = true; break;
    case 'R': options->plan.ready = true; break;
    case 't': options->plan.deadline = (int)number(optarg, 1, INT32_MAX / 1000); break;
    case 'f': pass(options, optarg); break;
    case 'p': console_is_output = true; break;
    default: misuse("its options");
    }
}

static struct options parse(int argc, char **argv) {
    static const struct option names[] = {
        {"directory", required_argument, NULL, 'd'}, {"log", required_argument, NULL, 'l'},
        {"log-size", required_argument, NULL, 's'},  {"log-files", required_argument, NULL, 'n'},
        {"own-cgroup", required_argument, NULL, 'o'}, {"cgroup", required_argument, NULL, 'c'},
        {"own-tree", required_argument, NULL, 'O'},  {"tree", required_argument, NULL, 'C'},
        {"uid", required_argument, NULL, 'u'},       {"kvm", no_argument, NULL, 'k'},
        {"resumed", no_argument, NULL, 'r'},         {"ready", no_argument, NULL, 'R'},
        {"deadline", required_argument, NULL, 't'},  {"fd", required_argument, NULL, 'f'},
        {"console-output", no_argument, NULL, 'p'},  {NULL, 0, NULL, 0}};
    struct options options = {.log_files = 1};
    int option;

    while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1)
        take_option(&options, option);
    options.jail.argv = argv + optind;
    if (!options.directory || !options.jail.argv[0] || !options.jail.uid)
        misuse("its options");
    return options;
}

/* Put the number of a descriptor where its name is. */
static void replace(char **argv, const char *name, int fd) {
    for (; *argv; argv++) {
        char *at = strstr(*argv, name), *text;
        if (!at)
            continue;
        if (asprintf(&text, "%.*s%d%s", (int)(at - *argv), *argv, fd, at + strlen(name)) < 0)
            die(name);
        *argv = text;
    }
}

/* A connected pair: ours is returned, QEMU's gets that number. */
static int pair(int number) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
        fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 || dup3(ends[1], number, O_CLOEXEC) < 0)
        die("its sockets");
    close(ends[1]);
    return ends[0];
}

/* QEMU's descriptors follow each other: those that were passed, and these three. */
static void open_sockets(struct options *options) {
    struct jail *jail = &options->jail;
    int ends[2], next = PASSED + options->passed;

    jail->first = PASSED;
    jail->last = next + 2;
    for (int n = next; n <= jail->last; n++) /* nothing else may take these numbers */
        if (dup3(FIRST, n, O_CLOEXEC) < 0)
            die("its sockets");
    fcntl(FIRST, F_DUPFD_CLOEXEC, 0); /* whoever waits for the end of all waits for this one */
    replace(jail->argv, "@agent@", next);
    replace(jail->argv, "@console@", next + 1);
    replace(jail->argv, "@qmp@", next + 2);
    agent_fd = pair(next);
    console_fd = pair(next + 1);
    int qmp = listen_at("qmp", SOCK_STREAM);
    if (dup3(qmp, next + 2, O_CLOEXEC) < 0 || pipe2(ends, O_CLOEXEC) < 0 ||
        fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        die("its sockets");
    close(qmp);
    words_fd = ends[0];
    jail->words = ends[1];
}

static void start(struct options *options) {
    struct jail *jail = &options->jail;
    char why[256], text[320];

    options->plan.qemu = jail_start(jail, why, sizeof why);
    if (options->plan.qemu < 0) {
        int length = snprintf(text, sizeof text, "QEMU cannot be started: %s", why);
        client_say(&clients[0], FAILED, text, (size_t)length);
        exit(1);
    }
    for (int fd = jail->first; fd <= jail->last; fd++)
        close(fd);
    close(jail->words);
}

static void set_up(struct options *options) {
    umask(077);
    if (chdir(options->directory) < 0)
        die(options->directory);
    for (const char *const *name = (const char *const[]){"exit", "reason", "console", NULL}; *name;
         name++)
        unlink(*name); /* of an earlier life */
    open_sockets(options); /* before anything else takes their numbers */
    signals = watch_signals();
    enter_cgroups(&options->cgroups);
    if (options->log && log_open(options->log, options->log_size, options->log_files) < 0)
        die(options->log);
    listener = listen_at("socket", SOCK_SEQPACKET);
    client_look(&clients[0]); /* it may attach before anything can be missed */
    start(options);
    machine_begin(&options->plan);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "memory") == 0)
        return memory_main(argc - 1, argv + 1);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        client->fd = -1;
    for (unsigned n = 0; n < CHANNELS; n++)
        channels[n].credit = channels[n].granted = CREDIT_AT_START;
    client_add(FIRST);
    fcntl(FIRST, F_SETFD, FD_CLOEXEC);
    struct options options = parse(argc, argv);
    close_range((unsigned)(PASSED + options.passed), ~0U, 0); /* what was let through */
    if (options.cgroups.own_tree)
        move_into(options.cgroups.own_tree);
    set_up(&options);
    for (;;)
        turn();
}
