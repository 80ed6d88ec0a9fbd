/* From the kernel's first process to the point where the machine can become any instance. What is
 * done here is in the memory that templates keep: nothing of it belongs to one instance. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { DEVICES_WITHIN = 5000 };

int old_root = -1;
char release[65];

static int is_module(const struct dirent *entry) { return strstr(entry->d_name, ".ko") != NULL; }

/* In the order of their names. Each file is memory: it goes when its module is there. */
static void load_modules(void) {
    struct dirent **modules;
    char path[300];
    int count = scandir("/boot", &modules, is_module, alphasort);

    for (int n = 0; n < count; n++) {
        snprintf(path, sizeof path, "/boot/%s", modules[n]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            printf("sublet: %s: %s\n", path, strerror(errno));
        close(fd);
        unlink(path);
        free(modules[n]);
    }
    if (count >= 0)
        free(modules);
}

static void wait_for_disks(void) {
    const struct timespec moment = {.tv_nsec = 5000000};
    char device[DEVICE_MOST];
    for (int waited = 0; waited < DEVICES_WITHIN && !disk_find("modules", device); waited += 5)
        nanosleep(&moment, NULL);
}

static void mount_kernel_files(void) {
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    for (const char *const *name =
             (const char *const[]){"/dev/pts", "/dev/shm", "/dev/mqueue", NULL};
         *name; name++)
        mkdir(*name, 0755);
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m");
    mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    (void)!symlink("/proc/self/fd", "/dev/fd");
    (void)!symlink("/proc/self/fd/0", "/dev/stdin");
    (void)!symlink("/proc/self/fd/1", "/dev/stdout");
    (void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

/* What almost every command needs: read and unpacked once, not in each clone of a template. */
static void warm(void) {
    static const char *const files[] = {
        "/image/bin/sh", "/image/lib64/ld-linux-x86-64.so.2", "/image/etc/ld.so.cache",
        "/image/lib/x86_64-linux-gnu/libc.so.6", "/image/lib/ld-musl-x86_64.so.1",
        "/image/etc/passwd", "/image/etc/group"};
    static char piece[1 << 16];

    for (size_t n = 0; n < sizeof files / sizeof *files; n++) {
        int fd = open(files[n], O_RDONLY | O_CLOEXEC);
        while (fd >= 0 && read(fd, piece, sizeof piece) > 0) {
        }
        if (fd >= 0)
            close(fd);
    }
}

void boot(void) {
    struct utsname name;

    reboot(RB_DISABLE_CAD);
    mount_kernel_files();
    if (uname(&name) == 0)
        snprintf(release, sizeof release, "%s", name.release);
    old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    busybox = open("/bin/busybox", O_RDONLY | O_CLOEXEC);
    load_modules();
    network_prepare();
    wait_for_disks();
    set_kernel("/proc/sys/vm/drop_caches", "3");
    root_prepare();
    warm();
}
