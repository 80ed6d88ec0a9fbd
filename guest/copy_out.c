/* A file or directory as an archive. Sockets are left out. Names come in order, so that the same files give the same archive. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy.h"
#include "guest.h"

enum { KERNELS = 3 };

static char name[NAME_MOST + 2]; /* of the member at hand */
static size_t width;
static struct stat closed[KERNELS]; /* directories whose contents stay out */
static size_t closed_count;
static char *const *host_files;
static int image = -1, scaffold = -1, upper = -1;

static void put_other(int parent, const char *base, struct entry *entry) {
    char link[PATH_MAX];
    if (entry->kind == TAR_LINK) {
        ssize_t length = readlinkat(parent, base, link, sizeof link - 1);
        if (length < 0)
            return;
        link[length] = '\0';
        entry->link = link;
    }
    put_header(entry);
}

/* The name under which a file with several names has gone already. */
static bool put_known(const struct stat *status, struct entry *entry) {
    if (status->st_nlink < 2)
        return false;
    const char *known = seen(status);
    if (!known) {
        see(status, name);
        return false;
    }
    entry->kind = TAR_HARD_LINK;
    entry->link = known;
    entry->size = 0;
    put_header(entry);
    return true;
}

static bool is_closed(const struct stat *status) {
    for (size_t n = 0; n < closed_count; n++)
        if (closed[n].st_dev == status->st_dev && closed[n].st_ino == status->st_ino)
            return true;
    return false;
}

static bool there(int root, const char *path) {
    struct stat status;
    return root >= 0 && fstatat(root, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A directory that is there only so that something can be mounted on it. */
static bool is_scaffold(void) {
    const char *path = name[0] == '.' && name[1] == '/' ? name + 2 : name;
    return there(scaffold, path) && !there(image, path) && !there(upper, path);
}

static void put_directory(int parent, const char *base, int depth);

static void put_member(int parent, const char *base, int depth) {
    struct stat status;
    struct entry entry;

    if (fstatat(parent, base, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        if (gone(errno))
            return;
        give_up(errno, name);
    }
    describe(name, &status, &entry);
    if (S_ISDIR(status.st_mode))
        put_directory(parent, base, depth);
    else if (entry.kind && !put_known(&status, &entry))
        entry.kind == TAR_FILE ? put_file(parent, base, name) : put_other(parent, base, &entry);
}

/* A file that the host has written: what the image has in its place, if it has anything. */
static bool put_instead(void) {
    char *const *each = host_files;
    while (*each && (strncmp(name, ".", 1) != 0 || strcmp(name + 1, *each) != 0))
        each++;
    if (!*each)
        return false;
    struct stat status;
    struct entry entry;
    const char *path = name + 2;
    if (image >= 0 && fstatat(image, path, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISDIR(status.st_mode)) {
        describe(name, &status, &entry);
        if (entry.kind)
            entry.kind == TAR_FILE ? put_file(image, path, name) : put_other(image, path, &entry);
    }
    return true;
}

static void put_children(int directory, int depth) {
    char **names = names_in(directory);
    size_t before = width;

    for (char **each = names; *each; each++) {
        size_t length = strlen(*each);
        if (before + 1 + length > NAME_MOST)
            give_up(ENAMETOOLONG, name);
        name[before] = '/';
        memcpy(name + before + 1, *each, length + 1);
        width = before + 1 + length;
        if (!host_files || !put_instead())
            put_member(directory, *each, depth + 1);
        name[width = before] = '\0';
        free(*each);
    }
    free(names);
}

static void put_directory(int parent, const char *base, int depth) {
    struct stat status;
    struct entry entry;
    int fd;

    if (depth > DEPTH_MOST)
        give_up(ENAMETOOLONG, name);
    if (is_scaffold())
        return;
    fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && gone(errno))
        return;
    if (fd < 0 || fstat(fd, &status) < 0)
        give_up(errno, name);
    describe(name, &status, &entry);
    add_xattrs(fd, &entry);
    strcpy(name + width, "/");
    put_header(&entry);
    name[width] = '\0';
    free(entry.xattrs.data);
    if (!is_closed(&status))
        put_children(fd, depth);
    close(fd);
}

static void put_all(int parent, const char *base, const char *top) {
    snprintf(name, sizeof name, "%s", top);
    width = strlen(name);
    put_member(parent, base, 0);
    put_zeros(2 * TAR_BLOCK);
    put_flush();
}

/* The file systems of the kernel, where they are mounted: nobody copies them with the rest. */
static void close_kernels(void) {
    static const char *const kernels[KERNELS] = {"/proc", "/sys", "/dev"};
    struct stat root, status;

    if (stat("/", &root) < 0)
        give_up(errno, "/");
    for (int n = 0; n < KERNELS; n++)
        if (lstat(kernels[n], &status) == 0 && S_ISDIR(status.st_mode) &&
            status.st_dev != root.st_dev)
            closed[closed_count++] = status;
}

void copy_send(const char *path, bool follow, const char *top) {
    char base[NAME_MAX + 1];
    struct stat status;
    int parent = located(path, follow, base);

    if (fstatat(parent, base, &status, AT_SYMLINK_NOFOLLOW) < 0)
        give_up(errno, path);
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode) && !S_ISLNK(status.st_mode))
        give_up_as("special", path);
    close_kernels();
    put_all(parent, base, top);
}

static int layer(const char *path) {
    return old_root < 0 ? -1 : openat(old_root, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The whole root, without what is mounted in it: a copy of its mount has none of that. */
void copy_root(char *const *own) {
    long root = syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (root < 0)
        give_up(errno, "/");
    host_files = own;
    image = layer("image");
    scaffold = layer("scaffold");
    upper = layer("disk/upper");
    put_all((int)root, ".", ".");
}
