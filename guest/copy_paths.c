/* Single files: what they hold, and what there is at a path. Links are followed, but for the last
 * one of what is removed or renamed; a FIFO is never waited for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"
#include "guest.h"

enum { LIST_MOST = 100000, CREATED = 0644 };

static char shown[NAME_MOST + 2];
static const char *asked; /* to list */
static size_t listed;

/* ---- What a file holds */

static void refuse(mode_t mode, const char *path) {
    if (S_ISDIR(mode))
        give_up(EISDIR, path);
    if (!S_ISREG(mode))
        give_up_as("special", path);
}

static int open_file(const char *path, int flags) {
    struct stat there;

    if (stat(path, &there) == 0)
        refuse(there.st_mode, path);
    else if (errno != ENOENT || !(flags & O_CREAT))
        give_up(errno, path);
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, CREATED);
    if (fd < 0 || fstat(fd, &there) < 0)
        give_up(errno, path);
    refuse(there.st_mode, path); /* it was exchanged meanwhile */
    return fd;
}

void copy_fetch(const char *path) {
    static char data[PIECE_MOST];
    int fd = open_file(path, O_RDONLY);
    ssize_t got;

    while ((got = read(fd, data, sizeof data)) > 0)
        put(data, (size_t)got);
    if (got < 0)
        give_up(errno, path);
    put_flush();
}

static void make_parents(const char *path) {
    char above[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (strlen(path) >= sizeof above)
        give_up(ENAMETOOLONG, path);
    snprintf(above, sizeof above, "%.*s", slash ? (int)(slash - path) : 0, path);
    if (*above && !make_directories(above)) {
        if (errno == EEXIST || errno == ENOTDIR)
            give_up_as("no-directory", above);
        give_up(errno, above);
    }
}

void copy_store(const char *path, int mode) {
    const char *data;
    size_t length;

    umask(022);
    make_parents(path);
    int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (mode >= 0 && fchmod(fd, (mode_t)mode) < 0)
        give_up(errno, path);
    while ((data = take(PIECE_MOST, &length)))
        while (length) {
            ssize_t written = write(fd, data, length);
            if (written < 0)
                give_up(errno, path);
            data += written;
            length -= (size_t)written;
        }
    if (close(fd) < 0)
        give_up(errno, path);
    dprintf(1, "1 0");
}

/* ---- What there is */

/* `TYPE SIZE MODE SECONDS PATH` and what a link says, each ended by a zero byte. */
static void put_entry(int parent, const char *base, const struct stat *status) {
    char facts[120], link[PATH_MAX] = "";
    mode_t mode = status->st_mode;
    char kind = S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o';

    if (kind == 'l') {
        ssize_t length = readlinkat(parent, base, link, sizeof link - 1);
        link[length > 0 ? length : 0] = '\0';
    }
    int width = snprintf(facts, sizeof facts, "%c %llu %o %lld.%09ld ", kind,
                         (unsigned long long)status->st_size, mode & 07777,
                         (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec);
    put(facts, (size_t)width);
    put(shown, strlen(shown) + 1);
    put(link, strlen(link) + 1);
}

void copy_stat(const char *path) {
    struct stat status;

    if (stat(path, &status) < 0)
        give_up(errno, path);
    snprintf(shown, sizeof shown, "%s", path);
    put_entry(AT_FDCWD, path, &status);
    put_flush();
}

static void list_directory(int directory, int depth);

static void list_one(int directory, const char *name, int depth, bool descend) {
    struct stat status;

    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (!descend) {
        if (++listed > LIST_MOST)
            give_up(E2BIG, asked);
        put_entry(directory, name, &status);
    } else if (S_ISDIR(status.st_mode)) {
        int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            list_directory(below, depth - 1);
    }
}

/* All of a directory, then what is in those below it. */
static void list_directory(int directory, int depth) {
    char **names = names_in(directory);
    size_t width = strlen(shown);

    for (int turn = 0; turn < (depth > 1 ? 2 : 1); turn++)
        for (char **each = names; *each; each++) {
            if (width + 1 + strlen(*each) > NAME_MOST)
                give_up(ENAMETOOLONG, shown);
            sprintf(shown + width, "%s%s", width && shown[width - 1] == '/' ? "" : "/", *each);
            list_one(directory, *each, depth, turn == 1);
            shown[width] = '\0';
        }
    for (char **each = names; *each; each++)
        free(*each);
    free(names);
    close(directory);
}

void copy_list(const char *path, int depth) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0)
        give_up(errno, path);
    asked = path;
    snprintf(shown, sizeof shown, "%s", path);
    list_directory(directory, depth);
    put_flush();
}

/* ---- What is changed */

void copy_make(const char *path) {
    umask(022);
    if (make_directories(path))
        return;
    if (errno == EEXIST || errno == ENOTDIR)
        give_up_as("no-directory", path);
    give_up(errno, path);
}

static void remove_one(int parent, const char *name, int depth, const char *path) {
    struct stat status;

    if (depth > DEPTH_MOST)
        give_up(ENAMETOOLONG, path);
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        give_up(errno, path);
    if (S_ISDIR(status.st_mode)) {
        int below = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0)
            give_up(errno, path);
        char **names = names_in(below);
        for (char **each = names; *each; each++) {
            remove_one(below, *each, depth + 1, path);
            free(*each);
        }
        free(names);
        close(below);
    }
    if (unlinkat(parent, name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0) < 0)
        give_up(errno, path);
}

void copy_remove(const char *path) {
    char base[NAME_MAX + 1];
    int parent = located(path, false, base);
    remove_one(parent, base, 0, path);
}

void copy_rename(const char *path, const char *to) {
    char base[NAME_MAX + 1];
    int parent = located(path, false, base);

    if (renameat(parent, base, AT_FDCWD, to) == 0)
        return;
    if (errno == EISDIR)
        give_up_as("directory", to);
    give_up(errno, to);
}
