/* Copies of files out of and into the instance, as tar streams: what the parts of it know of each
 * other. It is a program of its own that is part of the agent's: see copy.c.
 *
 * Written is the pax format of POSIX.1-2001 with GNU tar's records for sparse files (version 1.0)
 * and SCHILY.xattr; read are ustar, pax, GNU's long names and sparse files. */
#ifndef COPY_H
#define COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

enum {
    TAR_BLOCK = 512,
    EXTENTS_WRITTEN = 1 << 14,
    EXTENTS_MOST = 1 << 18,
    RECORDS_MOST = 4 << 20,
    NAME_MOST = 1 << 18,
    DEPTH_MOST = 4096, /* of directories, as each is kept open */
    PIECE_MOST = 1 << 16,
};

/* Kinds of entries, as in their headers */
enum {
    TAR_FILE = '0',
    TAR_HARD_LINK = '1',
    TAR_LINK = '2',
    TAR_CHARACTER = '3',
    TAR_BLOCK_DEVICE = '4',
    TAR_DIRECTORY = '5',
    TAR_FIFO = '6',
};

struct extent {
    uint64_t offset, length;
};

/* Texts `key`, zero byte, uint32_t, so many bytes; one after the other. */
struct records {
    char *data;
    size_t length, room;
};

struct entry {
    char kind;
    const char *name, *link;
    mode_t mode;
    uint64_t uid, gid, size; /* `size` as the file shows it */
    int64_t mtime;           /* whole seconds */
    unsigned major, minor;
    struct records xattrs;
    bool sparse;
    struct extent *extents; /* where it has data, when it is sparse */
    size_t count;
};

/* copy_say.c: how it ends. All of these end the program with 1; what was begun is removed. */
extern int unfinished;             /* directory of a file that is not complete; -1: none */
extern char unfinished_name[40];
_Noreturn void give_up(int number, const char *path); /* the error of errno */
_Noreturn void give_up_as(const char *reason, const char *about);
_Noreturn void corrupt(const char *sentence);
void *must(void *memory); /* what malloc gave, if it gave anything */

/* copy_set.c: inodes that have been seen, with a text each */
const char *seen(const struct stat *status);
void see(const struct stat *status, const char *text);

/* copy_records.c */
void record_add(struct records *records, const char *key, const void *value, size_t length);
/* The value of the record at `*at`, which moves on; NULL at the end. */
const char *record_next(const struct records *records, size_t *at, const char **key, size_t *length);
/* The last value of that key, ended by a zero byte too; NULL: there is none. */
const char *record_get(const struct records *records, const char *key, size_t *length);
bool xattr_wanted(const char *key);

/* copy_write.c: an archive to standard output */
void put(const void *data, size_t length);
void put_zeros(size_t length);
void put_header(const struct entry *entry); /* of a sparse file, with its map */
void put_flush(void);

/* copy_take.c: what standard input holds */
#define TOO_EARLY "The archive ends too early."
#define NUMBER_MOST (1ULL << 62)
const char *take(size_t most, size_t *length); /* up to `most` bytes; NULL at the end */
void take_exactly(char *data, size_t length);
void take_away(uint64_t length);
uint64_t header_number(const char *field, size_t width);
uint64_t decimal_number(const char *text, size_t length);

/* copy_read.c: an archive from standard input */
bool member_next(struct entry *entry); /* false after the last; skips what was not read */
size_t member_data(uint64_t *offset, const char **data); /* 0: no more */

/* copy_file.c: what a file holds */
bool gone(int number); /* that error means it is not there any more */
void add_xattrs(int fd, struct entry *entry);
void describe(const char *name, const struct stat *status, struct entry *entry);
void put_file(int parent, const char *base, const char *name);

/* copy_out.c, copy_in.c, copy_diff.c, copy_path.c: the verbs */
void copy_look(const char *path, bool follow);
int located(const char *path, bool follow, char *name); /* directory, and a name of NAME_MAX */
void copy_send(const char *path, bool follow, const char *top);
void copy_root(char *const *own); /* files that are the host's: the image's stand for them */
void copy_receive(const char *parent, const char *prefix, int strip, bool keep);
void copy_compare(const char *upper, const char *lower);
void copy_processes(void); /* copy_top.c */
/* copy_paths.c */
void copy_fetch(const char *path);
void copy_store(const char *path, int mode); /* -1: that of the file that is there, or 0644 */
void copy_stat(const char *path);
void copy_list(const char *path, int depth);
void copy_make(const char *path);
void copy_remove(const char *path);
void copy_rename(const char *path, const char *to);
void copy_watch(const char *path, bool all); /* copy_watch.c */
char **names_in(int directory); /* sorted, ended by NULL; the caller frees names and list */

#endif
