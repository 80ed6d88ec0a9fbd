/* The image below and the writable disk above, joined. Both mounts take longer than all else that
 * makes a machine an instance, so with a new disk they are made before the machine is one: a
 * template keeps that disk as it is then, beside the memory that has it mounted.
 *
 * What memory knows of a disk must never meet another one. So the disk is left clean and read-only,
 * where nothing of it waits to be written, and taken into use only where its first block is, byte
 * for byte, what it was: from the first use on it is not, for each counts as a mount. Otherwise all
 * is given up, which writes nothing, and the disk that is there is mounted as it is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

enum { HEAD = 4096 };

/* Offsets in the first block; the kernel's ext4/super.rst. */
enum { MOUNTED_AT = 1024 + 0x2c, MOUNTS = 1024 + 0x34, MAGIC_AT = 1024 + 0x38, MAGIC = 0xef53 };

static unsigned char head[HEAD] __attribute__((aligned(HEAD)));
static unsigned char other[HEAD] __attribute__((aligned(HEAD)));
static bool joined;

/* What the device holds, not what memory does. */
static bool read_head(unsigned char *block) {
    char device[DEVICE_MOST];
    int fd = disk_find("disk", device) ? open(device, O_RDONLY | O_DIRECT | O_CLOEXEC) : -1;
    bool done = fd >= 0 && pread(fd, block, HEAD, 0) == HEAD;
    if (fd >= 0)
        close(fd);
    return done;
}

static bool is_new(const unsigned char *block) {
    uint16_t magic, mounts;
    uint32_t mounted;
    memcpy(&magic, block + MAGIC_AT, sizeof magic);
    memcpy(&mounts, block + MOUNTS, sizeof mounts);
    memcpy(&mounted, block + MOUNTED_AT, sizeof mounted);
    return magic == MAGIC && mounts == 0 && mounted == 0;
}

/* An overlay's root has the owner and the mode of its upper layer, which is new. */
static void adopt_top(void) {
    struct stat lower, upper;

    mkdir("/disk/upper", 0755);
    mkdir("/disk/work", 0755);
    if (stat("/image", &lower) < 0 || stat("/disk/upper", &upper) < 0 ||
        (lower.st_mode == upper.st_mode && lower.st_uid == upper.st_uid &&
         lower.st_gid == upper.st_gid) ||
        !is_empty("/disk/upper"))
        return;
    (void)!chown("/disk/upper", lower.st_uid, lower.st_gid);
    chmod("/disk/upper", lower.st_mode & 07777);
}

static bool join(struct problem *problem) {
    char device[DEVICE_MOST];

    if (!disk_find("disk", device))
        return fail(problem, 125, 0, "The machine has no writable disk.");
    if (!disk_mount(device, "/disk", false))
        return fail(problem, 125, errno, "The writable disk cannot be mounted");
    adopt_top();
    if (mount("overlay", "/root", "overlay", 0,
              "lowerdir=/image:/scaffold,upperdir=/disk/upper,workdir=/disk/work,"
              "metacopy=off,redirect_dir=off") < 0)
        return fail(problem, 125, errno, "The image and the writable disk cannot be joined");
    return true;
}

/* A first file and directory: where there is room for such is read from the disk now. */
static void try_out(void) {
    mkdir("/disk/work/first", 0755);
    write_file("/disk/work/first/file", "x", 1);
    unlink("/disk/work/first/file");
    rmdir("/disk/work/first");
}

void layers_drop(void) {
    char device[DEVICE_MOST];

    umount2("/root", 0);
    umount2("/disk", 0);
    int fd = disk_find("disk", device) ? open(device, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        ioctl(fd, BLKFLSBUF); /* what memory holds of it */
        close(fd);
    }
    joined = false;
}

void layers_prepare(void) {
    struct problem problem;
    char device[DEVICE_MOST];

    if (!disk_find("image", device) || !read_head(head) || !is_new(head))
        return;
    bool done = join(&problem);
    if (done)
        try_out();
    disks_forget();
    joined = done && mount(NULL, "/disk", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0 &&
             read_head(head) && !is_new(head);
    if (!joined)
        layers_drop();
}

bool layers_join(struct problem *problem) {
    if (joined && read_head(other) && memcmp(head, other, HEAD) == 0) {
        if (!disk_again("/disk"))
            return fail(problem, 125, errno, "The writable disk cannot be written to");
        return true;
    }
    if (joined)
        layers_drop();
    return join(problem);
}
