/* The root file system of a partitioned disk, as clouds hand them out. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

enum { PARTITIONS = 32, SUPERBLOCKS = 0x10048 };

struct part {
    char device[DEVICE_MOST];
    unsigned long long sectors;
};

static int larger_first(const void *left, const void *right) {
    const struct part *a = left, *b = right;
    return a->sectors < b->sectors ? 1 : a->sectors > b->sectors ? -1 : 0;
}

/* The disk's partitions, and the disk itself, the largest first; it may have none. */
static size_t list(const char *disk, struct part parts[PARTITIONS]) {
    char path[300], text[32];
    size_t count = 0;

    snprintf(path, sizeof path, "/sys/block/%s", disk);
    DIR *all = opendir(path);
    const struct dirent *each;
    while (all && count < PARTITIONS - 1 && (each = readdir(all))) {
        if (strncmp(each->d_name, disk, strlen(disk)) != 0)
            continue;
        snprintf(path, sizeof path, "/sys/block/%s/%.60s/size", disk, each->d_name);
        read_file(path, text, sizeof text);
        parts[count].sectors = strtoull(text, NULL, 10);
        snprintf(parts[count++].device, DEVICE_MOST, "/dev/%.50s", each->d_name);
    }
    if (all)
        closedir(all);
    qsort(parts, count, sizeof *parts, larger_first);
    snprintf(parts[count].device, DEVICE_MOST, "/dev/%.50s", disk);
    return count + 1;
}

/* Which file system is there, by its magic number; NULL: none that could be a root. */
static const char *kind_of(const char *device) {
    static unsigned char head[SUPERBLOCKS];
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
    if (fd >= 0)
        close(fd);
    if (got < (ssize_t)sizeof head)
        return NULL;
    if (head[0x438] == 0x53 && head[0x439] == 0xef)
        return "ext4";
    if (memcmp(head, "XFSB", 4) == 0)
        return "xfs";
    return memcmp(head + 0x10040, "_BHRfS_M", 8) == 0 ? "btrfs" : NULL;
}

static void load(const char *module) {
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/modprobe", "modprobe", module, NULL);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static bool has_init(void) {
    static const char *const names[] = {"/root/sbin/init", "/root/usr/sbin/init",
                                        "/root/usr/lib/systemd/systemd"};
    struct stat there;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        if (lstat(names[n], &there) == 0)
            return true;
    return false;
}

static bool try(const char *device, const char *kind, const char *options) {
    if (mount(device, "/root", kind, MS_RDONLY, options) < 0)
        return false;
    if (has_init() && mount(NULL, "/root", NULL, MS_REMOUNT, options) == 0)
        return true;
    umount("/root");
    return false;
}

static bool try_all(const struct part *part) {
    const char *kind = kind_of(part->device);
    if (!kind)
        return false;
    if (strcmp(kind, "ext4") != 0)
        load(kind);
    return try(part->device, kind, NULL) ||
           (strcmp(kind, "btrfs") == 0 && (try(part->device, kind, "subvol=root") ||
                                           try(part->device, kind, "subvol=@")));
}

bool partition_mount(const char *serial, struct problem *problem) {
    struct part parts[PARTITIONS];
    char disk[DEVICE_MOST];

    if (!disk_find(serial, disk))
        return fail(problem, 125, 0, "The machine has no disk '%s'.", serial);
    int fd = open(disk, O_RDONLY | O_CLOEXEC); /* a template's disk may have been another */
    if (fd >= 0) {
        ioctl(fd, BLKRRPART, 0);
        close(fd);
    }
    size_t count = list(disk + strlen("/dev/"), parts);
    for (size_t n = 0; n < count; n++)
        if (try_all(&parts[n]))
            return true;
    return fail(problem, 125, 0,
                "The disk image has no ext4, XFS or Btrfs file system with an init in it.");
}
