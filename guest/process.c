/* A process of the instance, and the ends of its standard streams. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

enum { QUEUE_MOST = 1 << 20 };

void process_clear(struct process *process) {
    *process = (struct process){.input = -1, .output = -1, .errors = -1, .other_end = -1};
}

static void close_end(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool pipe_for(int *ours, int *theirs, int our_end) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *ours = ends[our_end];
    *theirs = ends[1 - our_end];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

/* The far end stays open here as well: a process may close all of its terminal and open it again,
 * and until then a read would fail (EIO). */
static bool open_terminal(struct process *process, int child[3], uid_t owner, const char *size) {
    int locked = 0, rows = 0, columns = 0;
    process->output = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (process->output < 0 || ioctl(process->output, TIOCSPTLCK, &locked) < 0)
        return false;
    int end = ioctl(process->output, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (end < 0 || fchown(end, owner, (gid_t)-1) < 0)
        return false;
    process->other_end = end;
    if (size && sscanf(size, "%d %d", &rows, &columns) == 2)
        process_window(process, rows, columns);
    child[0] = child[1] = child[2] = end;
    return true;
}

static bool open_pipes(struct process *process, int child[3], bool input) {
    child[0] = child[1] = child[2] = -1;
    return (input ? pipe_for(&process->input, &child[0], 1)
                  : (child[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) &&
           pipe_for(&process->output, &child[1], 0) && pipe_for(&process->errors, &child[2], 0);
}

static _Noreturn void child_runs(const struct process *process, const int child[3],
                                 const struct text *request, const struct user *user, char **argv,
                                 int report) {
    int moved[3];

    setsid();
    for (int n = 0; n < 3; n++) /* out of the way of each other */
        moved[n] = fcntl(child[n], F_DUPFD_CLOEXEC, 16);
    for (int n = 0; n < 3; n++)
        dup2(moved[n], n);
    if (process->terminal)
        ioctl(0, TIOCSCTTY, 0);
    process_become(request, user, argv, report);
    _exit(127);
}

static bool run(struct process *process, const int child[3], const struct text *request,
                const struct user *user, struct problem *problem) {
    int report[2] = {-1, -1};
    char **argv = text_all(request, "arg");
    bool started = false;

    if (!argv || pipe2(report, O_CLOEXEC) < 0 || (process->pid = fork()) < 0) {
        process->pid = 0;
        fail(problem, 125, errno, "The machine cannot start a process");
        close_end(&report[1]);
    } else if (process->pid == 0) {
        child_runs(process, child, request, user, argv, report[1]);
    } else {
        close_end(&report[1]);
        started = !process_refused(report[0], argv[0] ? argv[0] : "", problem);
    }
    close_end(&report[0]);
    free(argv);
    return started;
}

bool process_start(struct process *process, const struct text *request, bool input,
                   struct problem *problem) {
    int child[3];
    struct user user;
    bool started = false;

    process_clear(process);
    process->terminal = text_is(request, "tty");
    if (!text_get(request, "arg"))
        return fail(problem, 125, 0, "There is no command to run.");
    if (!user_find(request, &user, problem))
        return false;
    if (!(process->terminal ? open_terminal(process, child, user.uid, text_get(request, "window"))
                            : open_pipes(process, child, input)))
        fail(problem, 125, errno, "The machine has no more terminals or pipes");
    else
        started = run(process, child, request, &user, problem);
    if (process->terminal && input)
        process->input = process->output;
    if (!process->terminal)
        for (int n = 0; n < 3; n++)
            close_end(&child[n]);
    process->started = started;
    if (!started) {
        process->pid = 0;
        process_drop(process);
    }
    return started;
}

void process_ended(struct process *process, int status) {
    process->pid = 0;
    process->ended = true;
    process->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A request that is cut short does no harm: more input than the credit allows comes only when the
 * host has forgotten, in a restored machine, what it had sent. */
void process_input(struct process *process, const char *data, size_t length) {
    size_t waiting = process->to - process->from;
    if (process->from) {
        memmove(process->queue, process->queue + process->from, waiting);
        process->from = 0;
        process->to = waiting;
    }
    if (process->to + length > process->room) {
        size_t room = process->to + length + CREDIT_AT_START;
        char *grown = room > QUEUE_MOST ? NULL : realloc(process->queue, room);
        if (!grown)
            return;
        process->queue = grown;
        process->room = room;
    }
    memcpy(process->queue + process->to, data, length);
    process->to += length;
}

void process_close_input(struct process *process) {
    process->closing = true;
    if (process->from == process->to && !process->terminal)
        close_end(&process->input);
}

size_t process_write(struct process *process) {
    size_t done = 0;
    while (process->from < process->to) {
        size_t waiting = process->to - process->from;
        ssize_t written = process->input < 0 ? -1 : write(process->input,
                                                          process->queue + process->from, waiting);
        if (written < 0 && process->input >= 0 && (errno == EAGAIN || errno == EINTR))
            return done;
        if (written < 0) { /* nobody reads it any more */
            if (!process->terminal)
                close_end(&process->input);
            written = (ssize_t)waiting;
        }
        process->from += (size_t)written;
        done += (size_t)written;
    }
    free(process->queue);
    process->queue = NULL;
    process->from = process->to = process->room = 0;
    if (process->closing)
        process_close_input(process);
    return done;
}

void process_window(const struct process *process, int rows, int columns) {
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    if (process->terminal && process->output >= 0)
        ioctl(process->output, TIOCSWINSZ, &size);
}

void process_drop(struct process *process) {
    if (process->pid > 0) /* our child, not reaped: the pid is nobody else's */
        descent_kill(process->pid);
    if (process->terminal)
        process->input = -1; /* the same as its output */
    close_end(&process->input);
    close_end(&process->output);
    close_end(&process->errors);
    close_end(&process->other_end);
    free(process->queue);
    process_clear(process);
}
