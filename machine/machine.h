/* What the parts of the supervisor of a machine know of each other. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../guest/frames.h"
#include "../supervisor/host.h"
#include "../supervisor/log.h"

enum {
    CLIENTS = 256,
    MACHINE = 0,           /* the machine's own channel; the one of a client is its number + 1 */
    REPLAY = CLIENTS + 1,  /* where the supervisor itself configures the machine after a reboot */
    CHANNELS,
    GIVE_BACK = CREDIT_AT_START / 2, /* so many bytes are taken before the guest is told: the
                                        rest is enough for the longest packet */
    TAIL = 2000,           /* characters of the console that an error shows */
};

/* jail.c: QEMU, shut in */

struct jail {
    uid_t uid;
    bool kvm;
    int words;       /* becomes its standard output and errors */
    int first, last; /* the descriptors that it keeps */
    char **argv;
};

/* The pid of QEMU, which has executed; -1 with the reason in `why`. */
pid_t jail_start(const struct jail *jail, char *why, size_t size);

/* root.c: the file system that QEMU sees */

/* Make it in the caller's own mount namespace; NULL, or what could not be made (errno). */
const char *root_enter(uid_t uid, bool kvm);

/* console.c: what the serial console prints, and what QEMU itself says */

extern int console_fd, words_fd; /* our ends; -1: it has ended */

extern bool console_is_output; /* what it prints counts as the main process's output */

void console_read(void);
void words_read(void);
int console_wait(void);  /* milliseconds until console_look is to write into the log; -1: never */
void console_look(void);
void console_finish(void); /* take and write what is left of both */
/* The end of both, as far as it can be printed; the length. */
size_t console_tail(char *text, size_t size);
size_t words_tail(char *text, size_t size);
bool console_panicked(void);

/* agent.c: frames to and from the guest */

enum agent {
    SILENT,  /* not READY */
    TALKING,
    DEAF,    /* it broke the protocol too often, or has closed its end */
};
extern enum agent agent;
extern int agent_fd;

/* Take what there is; the number of bytes. */
size_t agent_read(void);
/* Write some of what there is to write, as far as the guest takes it; whether there may be more. */
bool agent_write(void);
bool agent_blocked(void); /* a frame waits for the guest to read */
/* Room for the payload of the next frame; NULL while the last one has not gone. */
char *agent_room(void);
void agent_frame(unsigned channel, uint8_t kind, size_t length);
/* Answer READY: what the agent has to find before it listens. */
void agent_synchronize(const char *text, size_t length);

/* channel.c */

struct channel {
    bool open;                 /* OPEN was said */
    bool over;                 /* SHUT is to be said */
    bool shut_said, shut_heard;
    uint32_t credit;           /* bytes of packets that we may send */
    uint32_t granted;          /* that the guest may send */
    uint32_t taken;            /* that it has sent, and has not been told of */
    char *queue;               /* packets that wait to be delivered, each behind its length */
    size_t from, to;
};

extern struct channel channels[CHANNELS];
extern int quiet; /* the channel that has said QUIESCE; -1: none */

void channel_begin(struct channel *channel); /* as a new one, not yet open */
struct client *channel_client(unsigned number); /* NULL for those that are no client's */
void channels_reset(void); /* the guest is a new one */
void channels_flush(void); /* deliver what waits, whoever is not ready for it */
/* Take a frame; false when it breaks the protocol. */
bool channel_frame(unsigned number, uint8_t kind, const char *data, size_t length);
/* Deliver what waits, as far as it is taken. */
void channel_deliver(unsigned number);
/* The client has gone. */
void channel_close(unsigned number);
bool channel_idle(unsigned number);

/* say.c */

/* Put the next frame of any channel into the agent's room; false when there is none. */
bool channels_say(void);

/* client.c: connections */

struct client {
    int fd; /* -1: not in use */
    bool attached;
    bool owed;   /* it still has to get the machine's last piece of output */
    bool gone;   /* has closed its end; what it said is still to be forwarded */
    char type;   /* of the packet that waits to be forwarded, and its length with the type; */
    size_t length; /* 0: none */
};

extern struct client clients[CLIENTS];

struct client *client_add(int fd);
void client_drop(struct client *client);
bool client_say(struct client *client, char type, const void *data, size_t length);
/* Obey what is meant for the supervisor; note what is for the guest. */
void client_look(struct client *client);
/* The channel that the packet that waits belongs to. */
unsigned client_target(const struct client *client);
/* Take it. */
ssize_t client_take(struct client *client, char *data);

/* output.c: what the machine's main process writes */

bool output_busy(void); /* somebody has not got the last piece */
void output_give(char type, const char *data, size_t length);
void output_owed(struct client *client); /* it takes something again */
/* From the console, to the clients alone: who is not ready to take it loses it, for a kernel waits for its console. */
void output_spill(const char *data, size_t length);

/* configuration.c: what the machine was told to be, for a reboot inside */

/* Keep a packet of CONFIGURE; false when it is too much. */
bool configuration_keep(const char *data, size_t length);
bool configuration_rewind(void); /* false: there is none */
/* The next packet of it, without its type; -1: that was the last. */
ssize_t configuration_next(char *data, size_t size);

/* machine.c: its life */

enum stage {
    BOOTING,
    CONFIGURING, /* READY was told on the first connection */
    RUNNING,     /* STARTED was */
};
extern enum stage stage;
extern bool resumed; /* its main process runs already */

struct plan {
    pid_t qemu;
    int deadline; /* seconds until READY; 0: none */
    bool ready;   /* a clone of one that was READY */
};

/* QEMU has been started. */
void machine_begin(const struct plan *plan);
/* The guest has booted; false when that cannot be. */
bool machine_ready(const char *text, size_t length);
void machine_exited(int code);
void machine_faulted(void); /* the guest broke the protocol */
/* Whether the first connection still waits for STARTED. */
bool machine_needs(const struct client *client);
/* Whether it was resumed, and the guest has not answered on the first connection. */
bool machine_resumes(void);
/* A packet of the guest on a client's channel; whether it was an answer for the supervisor. */
bool machine_answer(struct client *client, char type, const char *data, size_t length);
/* A packet of a client to the guest. */
void machine_forwards(const struct client *client, const char *packet, size_t length);
bool machine_replays(void); /* the supervisor itself configures the machine */
void machine_replayed(char type, const char *text, size_t length);
int machine_wait(void);  /* milliseconds until machine_look is to look at the clock; -1: never */
void machine_look(void); /* has it ended, is it late, has who started it gone? */
void note(const char *text); /* into the log */
long long milliseconds(void);

/* ending.c: why it has ended, and what is left for the daemon */

/* QEMU has ended: tell all who wait, leave the exit code or the reason, and end. `why`: what the
 * supervisor killed it for, or NULL; `exited`: what the guest said, or -1. */
_Noreturn void ending(int status, const char *why, int exited);

/* loop.c */

extern int signals, listener; /* SIGCHLD; further clients */

void turn(void);

/* memory.c */

int memory_main(int argc, char **argv);

#endif
