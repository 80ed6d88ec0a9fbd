/* The file system that QEMU sees: what it executes and loads, read-only, three devices, a /proc
 * that shows itself alone, for the descriptors that it opens by name, and a small /tmp. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "machine.h"

static const char *const programs[] = {"/usr", "/lib", "/lib64", "/bin", "/sbin", NULL};

static int bind_read_only(const char *from, const char *to) {
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
    if (mount(from, to, NULL, MS_BIND, NULL) < 0)
        return -1;
    return mount(NULL, to, NULL, flags, NULL);
}

/* As it is on the host: a link into /usr, a directory, or not there. */
static int program_directory(const char *path) {
    char target[PATH_MAX];
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : -1;
    if (S_ISLNK(status.st_mode)) {
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        return symlink(target, path + 1);
    }
    return mkdir(path + 1, 0755) < 0 ? -1 : bind_read_only(path, path + 1);
}

static int loader_cache(void) {
    if (mkdir("etc", 0755) < 0 || mknod("etc/ld.so.cache", S_IFREG | 0644, 0) < 0)
        return -1;
    return bind_read_only("/etc/ld.so.cache", "etc/ld.so.cache") < 0 && errno != ENOENT ? -1 : 0;
}

/* Nodes of our own: those of the host may be its root's alone (/dev/kvm). */
static int device(const char *path, dev_t number, uid_t owner) {
    mode_t before = umask(0);
    int made = mknod(path, S_IFCHR | (owner ? 0600 : 0666), number);
    umask(before);
    return made < 0 ? -1 : chown(path, owner, owner);
}

static int devices(uid_t uid, bool kvm) {
    struct stat status;
    if (mkdir("dev", 0755) < 0 || device("dev/null", makedev(1, 3), 0) < 0 ||
        device("dev/urandom", makedev(1, 9), 0) < 0)
        return -1;
    if (!kvm)
        return 0;
    return stat("/dev/kvm", &status) < 0 ? -1 : device("dev/kvm", status.st_rdev, uid);
}

static int processes(void) {
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
    return mkdir("proc", 0555) < 0 ? -1
                                   : mount("proc", "proc", "proc", flags, "hidepid=2,subset=pid");
}

static int base(void) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("sublet", "/tmp", "tmpfs", MS_NOSUID | MS_NOEXEC,
              "mode=755,size=4m,nr_inodes=64") < 0)
        return -1;
    return chdir("/tmp");
}

static int leave_the_host(void) {
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/");
}

const char *root_enter(uid_t uid, bool kvm) {
    umask(022);
    if (base() < 0)
        return "its root";
    for (const char *const *path = programs; *path; path++)
        if (program_directory(*path) < 0)
            return *path;
    if (loader_cache() < 0)
        return "/etc/ld.so.cache";
    if (devices(uid, kvm) < 0)
        return "its devices";
    if (processes() < 0)
        return "/proc";
    if (mkdir("tmp", 0700) < 0 || chown("tmp", uid, uid) < 0)
        return "/tmp";
    return leave_the_host() < 0 ? "pivot_root" : NULL;
}
