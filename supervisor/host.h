/* What the supervisors of containers and of machines have in common: host.c. */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CGROUPS = 16 };

struct files {
    const char *paths[CGROUPS];
    int count;
};

/* Which cgroups are entered: tasks files (version 1) and the directories of version 2, if any. */
struct entrances {
    struct files own, inner;
    const char *own_tree, *tree;
};

extern int tree; /* the instance's cgroup of version 2, open; -1 without one */

/* Tell whoever waits for the start what is wrong (errno), and end. Each supervisor has its own. */
_Noreturn void die(const char *what);

void entrances_add(struct files *files, const char *path);
/* Enter one's own tasks files, and open those of the instance. */
void enter_cgroups(const struct entrances *entrances);
/* In the child: enter the tasks files of the instance. */
bool join_cgroups(void);
/* fork(2) into a cgroup of version 2, with further flags of clone(2); -1: the caller's own. To
 * write one's pid to cgroup.procs waits for every processor to pass a point of rest, up to 20 ms
 * (cgroup_threadgroup_rwsem); this does not, nor does a thread that moves itself by a tasks file
 * of version 1. */
pid_t fork_into(int cgroup, uint64_t flags);
/* Go on as a child that is in the cgroup of version 2. */
void move_into(const char *directory);

/* Ignore what would end a supervisor, which ends when its instance does, and return a descriptor
 * that tells of SIGCHLD. */
int watch_signals(void);
/* A listening socket of that name in the working directory. */
int listen_at(const char *name, int type);
/* Send one message of protocol.h; false (errno) when it is refused. */
bool packet_send(int fd, char type, const void *data, size_t length);
/* Leave a file of that name in the working directory, whole or not at all. */
void leave_file(const char *name, const char *text, size_t length);
void leave_exit_code(int code);

#endif
