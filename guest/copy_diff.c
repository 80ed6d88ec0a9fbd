/* What an overlay's writable layer holds, compared with the layer below: whiteouts are character
 * devices 0:0, trusted.overlay.opaque hides a directory of the image
 * (Documentation/filesystems/overlayfs.rst). What that means is for the host to say. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "copy.h"
#include "guest.h"

enum { OPENING = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

static char path[NAME_MOST + 1];
static size_t width;

static bool look_at(int directory, const char *name, struct stat *status) {
    if (directory < 0)
        return false;
    if (fstatat(directory, name, status, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    if (!gone(errno))
        give_up(errno, path);
    return false;
}

/* Names of both, each once. */
static char **joined(char **names, char **more) {
    size_t count = 0, others = 0, at = 0;
    while (names[count])
        count++;
    while (more[others])
        others++;
    char **all = must(malloc((count + others + 1) * sizeof *all)), **one = names, **two = more;
    while (*one || *two) {
        int order = !*one ? 1 : !*two ? -1 : strcmp(*one, *two);
        all[at++] = order <= 0 ? *one++ : *two++;
        if (order == 0)
            free(*two++);
    }
    all[at] = NULL;
    free(names);
    free(more);
    return all;
}

static char **names_of(int upper, int lower) {
    char value[2], **names = names_in(upper);
    bool opaque = fgetxattr(upper, "trusted.overlay.opaque", value, sizeof value) == 1 &&
                  value[0] == 'y';
    return lower >= 0 && opaque ? joined(names, names_in(lower)) : names;
}

static void compare(int upper, int lower, size_t depth);

static void compare_directory(int upper, int lower, const char *name, bool both, size_t depth) {
    int new = openat(upper, name, OPENING), old = -1;
    if (new >= 0 && both)
        old = openat(lower, name, OPENING);
    if (new >= 0 && (old >= 0 || !both))
        compare(new, old, depth);
    else if (!gone(errno))
        give_up(errno, path);
    if (new >= 0)
        close(new);
    if (old >= 0)
        close(old);
}

/* new: d(irectory), f(ile), w(hited out); old: d, f, - for none; whether owner and mode are the
 * same, and the time, `=` or `!`; `0` for an empty file; the path; a zero byte. */
static void tell(const struct stat *new, const struct stat *old) {
    char kinds[5] = {new ? S_ISDIR(new->st_mode) ? 'd' : 'f' : 'w',
                     old ? S_ISDIR(old->st_mode) ? 'd' : 'f' : '-', '!', '!', '+'};
    if (new && old && new->st_mode == old->st_mode && new->st_uid == old->st_uid &&
        new->st_gid == old->st_gid)
        kinds[2] = '=';
    if (new && old && new->st_mtim.tv_sec == old->st_mtim.tv_sec)
        kinds[3] = '=';
    if (new && new->st_size == 0)
        kinds[4] = '0';
    put(kinds, sizeof kinds);
    put(path, width + 1);
}

static void compare_name(int upper, int lower, const char *name, size_t depth) {
    struct stat new, old;
    bool has = look_at(upper, name, &new), had = look_at(lower, name, &old);

    if (has && S_ISCHR(new.st_mode) && new.st_rdev == 0)
        has = false;
    if (!has && !had)
        return;
    tell(has ? &new : NULL, had ? &old : NULL);
    if (has && S_ISDIR(new.st_mode))
        compare_directory(upper, lower, name, had && S_ISDIR(old.st_mode), depth + 1);
}

static void compare(int upper, int lower, size_t depth) {
    char **names;
    size_t before = width;

    if (depth > DEPTH_MOST)
        give_up(ENAMETOOLONG, path);
    names = names_of(upper, lower);
    for (char **each = names; *each; each++) {
        size_t length = strlen(*each);
        if (before + 1 + length > NAME_MOST)
            give_up(ENAMETOOLONG, path);
        path[before] = '/';
        memcpy(path + before + 1, *each, length + 1);
        width = before + 1 + length;
        compare_name(upper, lower, *each, depth);
        path[width = before] = '\0';
        free(*each);
    }
    free(names);
}

static int layer(const char *name) {
    int at = old_root < 0 ? AT_FDCWD : old_root;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        give_up(errno, name);
    return fd;
}

void copy_compare(const char *upper, const char *lower) {
    compare(layer(upper), layer(lower), 0);
    put_flush();
}
