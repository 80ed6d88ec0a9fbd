/* What the parts of the supervisor know of each other. */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "host.h"
#include "log.h"
#include "protocol.h"

enum { STREAMS = 2, CLIENTS = 256 };

/* task.c: a process, and the runtime that starts it */

enum state {
    NONE,
    STARTING,  /* the runtime works */
    EXECUTING, /* it has ended; its process has not yet become the command */
    RUNNING,
};

struct task {
    enum state state;
    pid_t runtime, process;
    char *pid_file;
    const char *gate; /* the fifo at which the process waits to be let go, if it does */
    int gate_fd;
    bool unwanted; /* whoever asked has gone */
};

enum outcome { UNCHANGED, HAS_STARTED, HAS_FAILED, HAS_ENDED };

/* Fork, enter the cgroups, make `fds` descriptors 0, 1, …, and execute. `gate` may be NULL. */
int task_start(struct task *task, const char *pid_file, const char *gate, char *const argv[],
               const int *fds, int count);
/* What has become of the task since it was last asked; `*code` when it has ended. */
enum outcome task_look(struct task *task, int *code);
void task_signal(const struct task *task, int number);
/* End it as soon as there is something to end. */
void task_abandon(struct task *task);

/* client.c: connections */

struct client {
    int fd;
    bool attached;
    unsigned owed; /* bits of the streams whose piece it still has to get */
    struct task task;
};

extern struct client clients[CLIENTS]; /* fd -1: not in use */

struct client *client_add(int fd);
void client_drop(struct client *client);
bool client_say(struct client *client, char type, const void *data, size_t length);
bool client_say_number(struct client *client, char type, int32_t number);
/* Take one message, if there is one. */
void client_read(struct client *client);
/* Give an attached client the piece of each stream in `bits`; what is refused is owed. */
void client_give(struct client *client, unsigned bits);

/* stream.c: the container's standard streams */

struct stream {
    int fd;
    char type;
    const char *name;
    size_t length;
    char data[MESSAGE];
};

extern struct stream streams[STREAMS];

/* Make what the runtime gets as descriptors 0, 1 and 2; with a terminal, 0 and 1 are nothing. */
int streams_open(int child[3], bool input, bool terminal);
void streams_terminal(int master);
/* Read a piece, log it, give it to all. False when there is none, now or ever. */
bool stream_pump(struct stream *stream);
/* Whether every client has had the last piece. */
bool stream_delivered(const struct stream *stream);
/* What is still in the pipes when the container has ended; nothing waits any more. */
void streams_finish(void);
/* The runtime's words, when no command has run. */
size_t streams_complaint(char *text, size_t size);
/* What the runtime said of a container whose command has not run yet: warnings. */
void streams_forget(void);
int input_fd(void);        /* where input waits to be written, -1 if none waits */
void input_write(void);    /* go on writing it */
void input_take(const char *data, size_t length);
void input_close(void);
void window_set(int rows, int columns);

#endif
