/* Disks, by the serial numbers that the host gave them. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "guest.h"

enum { KEPT = 64 };

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

bool disk_keep(const char *path) {
    int fd = count < KEPT ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0)
        kept[count++] = fd;
    return fd >= 0;
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
