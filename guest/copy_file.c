/* What a file holds, for an archive. Only what is a regular file when it is open is read. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "copy.h"

enum { READING = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };

bool gone(int number) { return number == ENOENT || number == ENOTDIR || number == ELOOP; }

void add_xattrs(int fd, struct entry *entry) {
    char list[1 << 16], *keys[1 << 10], value[1 << 16];
    size_t count = 0;
    ssize_t length = flistxattr(fd, list, sizeof list);

    for (char *at = list; length > 0 && at < list + length && count < sizeof keys / sizeof *keys;
         at += strlen(at) + 1)
        if (xattr_wanted(at))
            keys[count++] = at;
    for (size_t n = 0; n < count; n++) {
        ssize_t size = fgetxattr(fd, keys[n], value, sizeof value);
        if (size >= 0)
            record_add(&entry->xattrs, keys[n], value, (size_t)size);
    }
}

/* Where the file has data (lseek(2), SEEK_DATA); all of it, unless it has holes. */
static void find_extents(int fd, const struct stat *status, struct entry *entry) {
    off_t size = status->st_size, at = 0, end = 0;

    if (status->st_blocks * TAR_BLOCK >= size)
        return;
    entry->extents = must(malloc((EXTENTS_WRITTEN + 2) * sizeof *entry->extents));
    while (at < size) {
        off_t start = lseek(fd, at, SEEK_DATA);
        if (start < 0 && errno != ENXIO) {
            entry->count = 0;
            return;
        }
        if (start < 0 || start >= size)
            break;
        end = entry->count == EXTENTS_WRITTEN ? size : lseek(fd, start, SEEK_HOLE);
        end = end < 0 || end > size ? size : end;
        entry->extents[entry->count++] = (struct extent){(uint64_t)start, (uint64_t)(end - start)};
        at = end;
    }
    if (end < size) /* GNU tar ends a file where its last extent does */
        entry->extents[entry->count++] = (struct extent){(uint64_t)size, 0};
    entry->sparse = entry->count != 1 || entry->extents[0].length != (uint64_t)size;
}

/* Zeros for what has been cut off meanwhile, as the size is said. */
static void put_data(const char *name, int fd, uint64_t offset, uint64_t length) {
    static char data[PIECE_MOST];
    while (length) {
        size_t most = length < sizeof data ? (size_t)length : sizeof data;
        ssize_t got = pread(fd, data, most, (off_t)offset);
        if (got < 0)
            give_up(errno, name);
        if (got == 0)
            memset(data, 0, (size_t)(got = (ssize_t)most));
        put(data, (size_t)got);
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
}

void describe(const char *name, const struct stat *status, struct entry *entry) {
    static const struct {
        mode_t mode;
        char kind;
    } kinds[] = {{S_IFREG, TAR_FILE},      {S_IFLNK, TAR_LINK},         {S_IFDIR, TAR_DIRECTORY},
                 {S_IFCHR, TAR_CHARACTER}, {S_IFBLK, TAR_BLOCK_DEVICE}, {S_IFIFO, TAR_FIFO}};
    *entry = (struct entry){.name = name, .mode = status->st_mode & 07777,
                            .uid = status->st_uid, .gid = status->st_gid,
                            .mtime = status->st_mtim.tv_sec, .major = major(status->st_rdev),
                            .minor = minor(status->st_rdev)};
    for (size_t n = 0; n < sizeof kinds / sizeof *kinds; n++)
        if ((status->st_mode & S_IFMT) == kinds[n].mode)
            entry->kind = kinds[n].kind;
    if (entry->kind == TAR_FILE)
        entry->size = (uint64_t)status->st_size;
}

void put_file(int parent, const char *base, const char *name) {
    struct stat status;
    struct entry entry;
    uint64_t sum = 0;
    int fd = openat(parent, base, READING);

    if (fd < 0 && gone(errno))
        return;
    if (fd < 0 || fstat(fd, &status) < 0)
        give_up(errno, name);
    describe(name, &status, &entry);
    if (entry.kind == TAR_FILE) { /* else it was another kind of file a moment ago */
        find_extents(fd, &status, &entry);
        add_xattrs(fd, &entry);
        put_header(&entry);
        struct extent all = {0, entry.size};
        const struct extent *parts = entry.sparse ? entry.extents : &all;
        for (size_t n = 0; n < (entry.sparse ? entry.count : 1); n++) {
            put_data(name, fd, parts[n].offset, parts[n].length);
            sum += parts[n].length;
        }
        put_zeros((size_t)(-sum % TAR_BLOCK));
    }
    free(entry.extents);
    free(entry.xattrs.data);
    close(fd);
}
