/* An archive becomes files below one directory. Its names have no way up, and no symbolic link that
 * it made itself is followed; devices are left out. Each file is made in one step. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "copy.h"

enum { OPENING = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

struct level {
    char *name;
    int fd;
    bool told; /* the archive says what the directory is to be like */
    struct entry entry;
};

static struct level levels[DEPTH_MOST + 1]; /* the first is the directory itself */
static size_t depth;
static bool keep_owners;
static unsigned long made, left_out;
static const char *first_name;
static int stripped;

/* Components of a name in the archive, as they are below the directory. */
struct way {
    char *text;
    char *names[DEPTH_MOST];
    size_t count;
};

static void way_to(const char *text, struct way *way) {
    int strip = stripped;
    char *state, *copy = must(strdup(text));

    *way = (struct way){.text = copy};
    if (first_name)
        way->names[way->count++] = (char *)first_name;
    for (char *each = strtok_r(copy, "/", &state); each; each = strtok_r(NULL, "/", &state)) {
        if (strcmp(each, ".") == 0)
            continue;
        if (strcmp(each, "..") == 0)
            give_up_as("way-out", text);
        if (strip-- > 0)
            continue;
        if (way->count == DEPTH_MOST)
            corrupt("The archive holds directories that are too deep.");
        way->names[way->count++] = each;
    }
}

static int enter(int parent, const char *name) {
    struct stat status;
    int fd = openat(parent, name, OPENING);

    if (fd >= 0 || (errno != ENOTDIR && errno != ELOOP))
        return fd;
    int number = errno;
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode) &&
        !seen(&status))
        return openat(parent, name, OPENING & ~O_NOFOLLOW);
    errno = number;
    return -1;
}

static void own(const struct entry *entry, int at, const char *name) {
    uid_t uid = keep_owners ? (uid_t)entry->uid : 0;
    gid_t gid = keep_owners ? (gid_t)entry->gid : 0;

    if (keep_owners && (entry->uid >= UINT32_MAX || entry->gid >= UINT32_MAX))
        corrupt("The archive holds an owner that there cannot be.");
    if (fchownat(at, name, uid, gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
        give_up(errno, entry->name);
}

/* In the order in which none undoes another. */
static void set_attributes(int fd, const struct entry *entry) {
    const struct timespec times[2] = {{.tv_sec = entry->mtime}, {.tv_sec = entry->mtime}};
    const char *key, *value;
    size_t length;

    own(entry, fd, "");
    if (fchmod(fd, entry->mode) < 0)
        give_up(errno, entry->name);
    for (size_t at = 0; (value = record_next(&entry->xattrs, &at, &key, &length));)
        if (xattr_wanted(key))
            fsetxattr(fd, key, value, length, 0); /* not every file system takes them */
    if (futimens(fd, times) < 0)
        give_up(errno, entry->name);
}

static void leave(void) {
    struct level *level = &levels[depth--];
    if (level->told)
        set_attributes(level->fd, &level->entry);
    free((char *)level->entry.name);
    free(level->entry.xattrs.data);
    free(level->name);
    close(level->fd);
}

static struct level *down(const char *name, const char *shown) {
    if (depth == DEPTH_MOST)
        corrupt("The archive holds directories that are too deep.");
    int fd = enter(levels[depth].fd, name);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        give_up_as("no-directory", name);
    if (fd < 0)
        give_up(errno, shown);
    levels[++depth] = (struct level){.name = must(strdup(name)), .fd = fd};
    return &levels[depth];
}

/* Be in that directory, made if need be; what is left gets its attributes. */
static void go(char *const *names, size_t count, const char *shown) {
    size_t common = 0;
    while (common < depth && common < count &&
           strcmp(levels[common + 1].name, names[common]) == 0)
        common++;
    while (depth > common)
        leave();
    for (; common < count; common++) {
        if (mkdirat(levels[depth].fd, names[common], 0755) < 0 && errno != EEXIST)
            give_up(errno, shown);
        down(names[common], shown);
    }
}

static void make_directory(const char *name, const struct entry *entry) {
    if (mkdirat(levels[depth].fd, name, 0700) < 0 && errno != EEXIST)
        give_up(errno, entry->name);
    struct level *level = down(name, entry->name);
    level->told = true;
    level->entry = *entry;
    level->entry.name = must(strdup(entry->name));
    level->entry.xattrs = (struct records){0};
    level->entry.extents = NULL;
    const char *key, *value;
    size_t length;
    for (size_t at = 0; (value = record_next(&entry->xattrs, &at, &key, &length));)
        record_add(&level->entry.xattrs, key, value, length);
}

static void make_file(int at, const struct entry *entry) {
    const char *data;
    uint64_t offset;
    int fd = openat(at, unfinished_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    0600);
    if (fd < 0)
        give_up(errno, entry->name);
    unfinished = at;
    for (size_t length; (length = member_data(&offset, &data));) {
        while (length) {
            ssize_t written = pwrite(fd, data, length, (off_t)offset);
            if (written < 0)
                give_up(errno, entry->name);
            data += written;
            offset += (uint64_t)written;
            length -= (size_t)written;
        }
    }
    if (entry->sparse && ftruncate(fd, (off_t)entry->size) < 0)
        give_up(errno, entry->name);
    set_attributes(fd, entry);
    if (close(fd) < 0)
        give_up(errno, entry->name);
}

/* A further name for what the archive made before; a symbolic link is linked itself. */
static void make_hard_link(int at, const struct entry *entry) {
    struct way way;
    int fd = levels[0].fd;

    way_to(entry->link, &way);
    for (size_t n = 0; n + 1 < way.count; n++) {
        int next = enter(fd, way.names[n]);
        if (next < 0)
            give_up(errno, entry->name);
        if (fd != levels[0].fd)
            close(fd);
        fd = next;
    }
    if (linkat(fd, way.count ? way.names[way.count - 1] : "", at, unfinished_name, 0) < 0)
        give_up(errno, entry->name);
    unfinished = at;
    if (fd != levels[0].fd)
        close(fd);
    free(way.text);
}

static void make_node(int at, const struct entry *entry) {
    const struct timespec times[2] = {{.tv_sec = entry->mtime}, {.tv_sec = entry->mtime}};
    struct stat status;
    int result = entry->kind == TAR_FIFO ? mkfifoat(at, unfinished_name, entry->mode & 0777)
                                         : symlinkat(entry->link, at, unfinished_name);
    if (result < 0)
        give_up(errno, entry->name);
    unfinished = at;
    if (entry->kind == TAR_LINK && fstatat(at, unfinished_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        see(&status, "");
    own(entry, at, unfinished_name);
    utimensat(at, unfinished_name, times, AT_SYMLINK_NOFOLLOW);
}

static void make(const char *name, const struct entry *entry) {
    int at = levels[depth].fd;
    unsigned long long random = 0;

    if (entry->kind == TAR_CHARACTER || entry->kind == TAR_BLOCK_DEVICE) {
        left_out++;
        return;
    }
    made++;
    if (entry->kind == TAR_DIRECTORY) {
        make_directory(name, entry);
        return;
    }
    (void)!getrandom(&random, sizeof random, 0);
    snprintf(unfinished_name, sizeof unfinished_name, ".sublet-%016llx", random);
    if (entry->kind == TAR_FILE)
        make_file(at, entry);
    else if (entry->kind == TAR_HARD_LINK)
        make_hard_link(at, entry);
    else
        make_node(at, entry);
    if (renameat(at, unfinished_name, at, name) < 0) {
        if (errno == EISDIR)
            give_up_as("directory", name);
        give_up(errno, entry->name);
    }
    unlinkat(at, unfinished_name, 0); /* rename(2) leaves alone two names of one file */
    unfinished = -1;
}

void copy_receive(const char *parent, const char *prefix, int strip, bool keep) {
    static struct entry entry;

    levels[0].fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (levels[0].fd < 0)
        give_up(errno, parent);
    first_name = *prefix ? prefix : NULL;
    stripped = strip;
    keep_owners = keep;
    umask(0);
    while (member_next(&entry)) {
        struct way way;
        way_to(entry.name, &way);
        if (way.count) {
            go(way.names, way.count - 1, entry.name);
            make(way.names[way.count - 1], &entry);
        }
        free(way.text);
    }
    go(NULL, 0, parent);
    dprintf(1, "%lu %lu", made, left_out);
}
