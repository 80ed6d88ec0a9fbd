/* What the parts of the guest agent know of each other. */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "frames.h"

enum {
    CHANNELS = 320,          /* the supervisor has 256 clients */
    PIECE = 1 << 14,         /* most that is read of a process at once */
    REQUEST_MOST = 16 << 20, /* a request with files */
    DEVICE_MOST = 64,        /* room for the path of a device */
};

/* settings.c: a request, `key=value` texts */

struct text {
    char *data;
    size_t length, room;
};

struct problem {
    int code; /* 124: no such user, 125: the machine's doing, 126: cannot be run, 127: not there */
    char text[480];
};

bool text_add(struct text *text, const void *data, size_t length);
void text_free(struct text *text);
/* The next value of `key` from `*at` on, which is 0 at first; NULL: no more. */
const char *text_next(const struct text *text, const char *key, size_t *at);
const char *text_get(const struct text *text, const char *key);
bool text_is(const struct text *text, const char *key); /* KEY=1 */
/* A vector of all values of `key`, ended by NULL, with room for one more; NULL: no memory. */
char **text_all(const struct text *text, const char *key);
/* False, always; says what went wrong, with the error of errno when `number` is not 0. */
bool fail(struct problem *problem, int code, int number, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* files.c */

bool write_file(const char *path, const char *text, size_t length);
void set_kernel(const char *path, const char *text); /* a file of /proc or /sys, if it is there */
size_t read_file(const char *path, char *text, size_t size);
bool make_directories(const char *path);
/* Replace or make a file, and the directories to it; what is there is never seen half written. */
bool place_file(const char *path, const char *text, size_t length, mode_t mode);

/* users.c */

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    size_t count;
    char home[256];
};

bool user_find(const struct text *request, struct user *user, struct problem *problem);

/* process.c */

struct process {
    pid_t pid; /* 0: none, or it has ended */
    int input, output, errors; /* -1: none; of a terminal, output is all */
    int other_end;             /* of the terminal, held open */
    bool started, ended, terminal, closing;
    int code;
    size_t since; /* bytes read since it ended */
    char *queue;  /* input that it has not read yet */
    size_t from, to, room;
};

void process_clear(struct process *process);
bool process_start(struct process *process, const struct text *request, bool input,
                   struct problem *problem);
void process_ended(struct process *process, int status);
void process_input(struct process *process, const char *data, size_t length);
/* Write what waits; the number of bytes that wait no more. */
size_t process_write(struct process *process);
void process_close_input(struct process *process);
void process_window(const struct process *process, int rows, int columns);
void process_drop(struct process *process); /* kill it and what it started; forget it */
/* Become the command; says over `report` why that was not possible, and returns then. */
void process_become(const struct text *request, const struct user *user, char **argv, int report);
/* What a child said over the pipe, if it said anything. */
bool process_refused(int report, const char *name, struct problem *problem);
/* descent.c */
void descent_kill(pid_t first); /* it, and what it has started, in a moment */

extern int busybox;  /* open */

/* channel.c */

struct channel {
    bool open, asked_shut, said_shut, wants_shut;
    bool executes; /* it was asked to */
    bool quiets;   /* its answer is the last word for now */
    bool waits;    /* for the end of the hooks of RENEW */
    bool settles;  /* its request is CONFIGURE or RENEW, which ends a silence */
    uint32_t credit; /* what the host lets us send */
    uint32_t owed;   /* what we have taken, and not yet told the host */
    char answer;     /* a packet to send before all else, 0: none */
    char *words;
    size_t length;
    struct text request;
    bool cut; /* not all of the request is there */
    struct process process;
    bool readable[2];
};

extern struct channel channels[CHANNELS];
extern bool quiet; /* QUIESCE was obeyed, GO has not come */

void channel_frame(unsigned number, int kind, const char *data, size_t length);
void channel_answer(struct channel *channel, int type, const void *data, size_t length);
void channel_refuse(struct channel *channel, const struct problem *problem);
bool channel_may_speak(const struct channel *channel); /* of what its process writes */
/* Put the next frame of any channel into the port; false: there is none. */
bool channels_say(void);
void channels_reset(const struct channel *but); /* drop all but that and the machine's own */
void channels_reap(void);
bool channels_silent(void); /* nothing is left to say but for the machine's own channel */

/* port.c: frames to and from the host */

extern int port;
bool port_open(void);
void port_token(char token[FRAME_TOKEN + 1]); /* the host begins with it */
bool port_idle(void); /* the last frame has gone */
char *port_room(void); /* where the data of the next packet goes, FRAME_MOST - 1 bytes */
void port_packet(unsigned number, int type, size_t length); /* send what is there */
void port_frame(unsigned number, int kind, const void *data, size_t length);
bool port_flush(void);
bool port_read(void); /* false: nobody is there */

/* boot.c, disks.c, layers.c, root.c: what lies under the image's root */

extern int old_root; /* the initramfs, open */
extern char release[65]; /* of the kernel */
void boot(void);
/* The device whose serial number is `serial`. */
const char *below(const char *path); /* a path of the initramfs, from any root */
/* The device whose serial number is `serial`. */
bool disk_find(const char *serial, char device[DEVICE_MOST]);
/* A file system ext4, as large as its device, and kept as below. */
bool disk_mount(const char *device, const char *path, bool read_only);
bool disk_again(const char *path); /* one that was made read-only is writable again */
void disks_forget(void);           /* none is kept any more */
bool is_empty(const char *directory);
bool disk_keep(const char *path); /* a file system to be frozen, and put to rest at the end */
void disks_freeze(bool freeze);
void disks_rest(void); /* nothing is written any more */
bool partition_mount(const char *serial, struct problem *problem); /* at /root */
void layers_prepare(void);                  /* where the writable disk is new */
bool layers_join(struct problem *problem); /* at /root */
void layers_drop(void);
void root_prepare(void);
bool root_enter(const struct text *request, struct problem *problem);
bool mounts_make(const struct text *request, struct problem *problem);

/* identity.c, network.c */

void entropy_add(const char *hex);
void clock_set(const char *time);
bool identity_set(const struct text *request, struct problem *problem);
bool files_place(const struct text *request, struct problem *problem);
void network_prepare(void);
bool network_set(const struct text *request, struct problem *problem);

/* renew.c: a machine that was restored */

void machine_renew(struct channel *channel);
void renew_child(pid_t pid); /* a child that belongs to no channel has ended */
int renew_wait(void);        /* milliseconds until renew_look has to look; -1: never */
void renew_look(void);

/* tools.c: our busybox, in the instance's root */

int copy_main(int count, char **argv); /* copy.c */
int online_main(int count, char **argv); /* online.c */
int translate_main(int count, char **argv); /* translate.c */
pid_t tool_start(char *const argv[]);
bool tool_run(char *const argv[]); /* whether it succeeded */
long long milliseconds(void);      /* of a clock that only runs */

/* machine.c: requests that concern the machine */

enum mode { WAITING, APPLICATION, INIT };
extern enum mode mode;
void machine_configure(struct channel *channel);
void machine_quiesce(struct channel *channel, const char *data, size_t length);
void machine_go(const char *data, size_t length);
void machine_signal(int number);
void machine_ends(void);       /* the main process has ended: so does all else */
bool machine_may_end(void);    /* nobody has anything more to say */
bool machine_hurries(void);    /* it was to end long ago: what nobody takes is left unsaid */
void machine_over(void);       /* the last word has been said */
int machine_wait(void);        /* milliseconds until machine_look has to look; -1: never */
void machine_look(void);

#endif
