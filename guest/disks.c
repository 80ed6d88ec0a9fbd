/* Disks, by the serial numbers that the host gave them. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "guest.h"

enum { KEPT = 64, SUPERBLOCK = 1024, BLOCKS_COUNT = 4 }; /* the kernel's ext4/super.rst */

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static struct disk {
    char serial[32], device[DEVICE_MOST];
} known[KEPT];
static int disks;
static int kept[KEPT]; /* roots of writable file systems, open */
static int count;
static bool frozen;

/* Asked of the devices once: which they are never changes, and each answer takes its time. */
static void list_disks(void) {
    DIR *all = opendir("/sys/block");
    const struct dirent *each;

    disks = 0;
    while (all && disks < KEPT && (each = readdir(all))) {
        struct disk *disk = &known[disks];
        char path[300];
        snprintf(path, sizeof path, "/sys/block/%s/serial", each->d_name);
        read_file(path, disk->serial, sizeof disk->serial);
        disk->serial[strcspn(disk->serial, "\n")] = '\0';
        snprintf(disk->device, DEVICE_MOST, "/dev/%.50s", each->d_name);
        disks += disk->serial[0] != '\0';
    }
    if (all)
        closedir(all);
}

static const struct disk *look_up(const char *serial) {
    for (int n = 0; n < disks; n++)
        if (strcmp(known[n].serial, serial) == 0)
            return &known[n];
    return NULL;
}

bool disk_find(const char *serial, char device[DEVICE_MOST]) {
    const struct disk *disk = look_up(serial);
    if (!disk) {
        list_disks();
        disk = look_up(serial);
    }
    if (disk)
        memcpy(device, disk->device, DEVICE_MOST);
    return disk != NULL;
}

bool is_empty(const char *directory) {
    DIR *all = opendir(directory);
    const struct dirent *each;
    bool empty = all != NULL;

    while (all && empty && (each = readdir(all)))
        empty = strcmp(each->d_name, ".") == 0 || strcmp(each->d_name, "..") == 0 ||
                strcmp(each->d_name, "lost+found") == 0;
    if (all)
        closedir(all);
    return empty;
}

bool disk_keep(const char *path) {
    int fd = count < KEPT ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0)
        kept[count++] = fd;
    return fd >= 0;
}

/* The host makes disks larger, but never touches what a guest has written: the guest stretches
 * its file systems itself (there is no header for this of ext4). */
static void stretch(const char *device, const char *path) {
    int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int disk = open(device, O_RDONLY | O_CLOEXEC);
    struct statvfs room;
    uint64_t size, blocks;
    uint32_t now; /* the lower half is enough to see a difference */

    if (root >= 0 && disk >= 0 && fstatvfs(root, &room) == 0 &&
        ioctl(disk, BLKGETSIZE64, &size) == 0 &&
        pread(disk, &now, sizeof now, SUPERBLOCK + BLOCKS_COUNT) == sizeof now) {
        blocks = size / room.f_bsize;
        if (now != (uint32_t)blocks && ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) < 0)
            printf("sublet: %s keeps its size: %s\n", path, strerror(errno));
    }
    close(root);
    close(disk);
}

static const char written[] = "noinit_itable,discard,errors=remount-ro";

bool disk_mount(const char *device, const char *path, bool read_only) {
    unsigned long flags = MS_NOATIME | (read_only ? MS_RDONLY : 0);
    const char *options = read_only ? "" : written;
    if (mount(device, path, "ext4", flags, options) < 0)
        return false;
    if (!read_only) {
        stretch(device, path);
        disk_keep(path);
    }
    return true;
}

bool disk_again(const char *path) {
    return mount(NULL, path, NULL, MS_REMOUNT | MS_NOATIME, written) == 0 && disk_keep(path);
}

void disks_forget(void) {
    while (count > 0)
        close(kept[--count]);
}

void disks_freeze(bool freeze) {
    for (int n = 0; n < count && freeze && !frozen; n++) {
        syncfs(kept[n]);
        ioctl(kept[n], FIFREEZE, 0);
    }
    for (int n = count - 1; n >= 0 && !freeze && frozen; n--)
        ioctl(kept[n], FITHAW, 0);
    frozen = freeze;
}

/* Read-only, or frozen where something still holds a file: either leaves a clean journal. */
void disks_rest(void) {
    char path[40];
    sync();
    for (int n = count - 1; n >= 0; n--) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", kept[n]);
        if (mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
            ioctl(kept[n], FIFREEZE, 0);
    }
    sync();
}
