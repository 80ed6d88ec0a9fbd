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

enum { KEPT = 64 };

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static int kept[KEPT]; /* roots of writable file systems, open */
static int count;
static bool frozen;

bool disk_find(const char *serial, char device[DEVICE_MOST]) {
    DIR *all = opendir("/sys/block");
    const struct dirent *each;
    bool found = false;

    while (all && !found && (each = readdir(all))) {
        char path[300], text[32];
        snprintf(path, sizeof path, "/sys/block/%s/serial", each->d_name);
        read_file(path, text, sizeof text);
        text[strcspn(text, "\n")] = '\0';
        found = text[0] && strcmp(text, serial) == 0;
        if (found)
            snprintf(device, DEVICE_MOST, "/dev/%.50s", each->d_name);
    }
    if (all)
        closedir(all);
    return found;
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

    if (root >= 0 && disk >= 0 && fstatvfs(root, &room) == 0 &&
        ioctl(disk, BLKGETSIZE64, &size) == 0) {
        blocks = size / room.f_bsize;
        if (ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) < 0)
            printf("sublet: %s keeps its size: %s\n", path, strerror(errno));
    }
    close(root);
    close(disk);
}

bool disk_mount(const char *device, const char *path, bool read_only) {
    unsigned long flags = MS_NOATIME | (read_only ? MS_RDONLY : 0);
    if (mount(device, path, "ext4", flags, read_only ? "" : "noinit_itable,discard,errors=remount-ro") < 0)
        return false;
    if (!read_only) {
        stretch(device, path);
        disk_keep(path);
    }
    return true;
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
