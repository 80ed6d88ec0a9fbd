/* The instance's root: the image below, the writable disk above, and this process inside. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

const char *below(const char *path) {
    static char text[128];
    snprintf(text, sizeof text, "/proc/%d/fd/%d/%s", getpid(), old_root, path);
    return text;
}

/* A layer under the image, with the directories that something is mounted at: so that nothing of
 * it appears in what the instance has changed. */
static void build_scaffold(void) {
    struct stat lib;
    char path[200];
    bool merged = lstat("/image/lib", &lib) == 0 && S_ISLNK(lib.st_mode);

    snprintf(path, sizeof path, "/scaffold/%slib/modules/%s", merged ? "usr/" : "", release);
    make_directories(path);
    for (const char *const *name =
             (const char *const[]){"proc", "sys", "dev", "run", "run/sublet", NULL};
         *name; name++) {
        snprintf(path, sizeof path, "/scaffold/%s", *name);
        mkdir(path, 0755);
    }
}

void root_prepare(void) {
    char device[DEVICE_MOST];

    make_directories("/lib/modules");
    for (const char *const *name =
             (const char *const[]){"image", "disk", "root", "scaffold", "volumes", NULL};
         *name; name++)
        mkdir(*name, 0755);
    if (disk_find("image", device) && mount(device, "/image", "squashfs", MS_RDONLY, NULL) < 0)
        printf("sublet: the image cannot be mounted: %s\n", strerror(errno));
    build_scaffold();
    char modules[100];
    snprintf(modules, sizeof modules, "/lib/modules/%s", release);
    mkdir(modules, 0755);
    if (!disk_find("modules", device) || mount(device, modules, "squashfs", MS_RDONLY, NULL) < 0)
        printf("sublet: the kernel's modules cannot be mounted: %s\n", strerror(errno));
    layers_prepare();
}

/* As switch_root(8) does. The first process shares its root with the kernel's threads, which
 * therefore look for helpers (modprobe) in the instance's root from now on. */
static bool switch_root(struct problem *problem) {
    if (chdir("/root") == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0 &&
        chdir("/") == 0)
        return true;
    return fail(problem, 125, errno, "The instance's root cannot be entered");
}

/* The kernel's file systems are mounted already: they go along. */
static bool bring_kernel_files(const struct text *request, bool init, struct problem *problem) {
    const char *shm = text_get(request, "shm");
    unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    char options[64];

    for (const char *const *name = (const char *const[]){"proc", "sys", "dev", NULL}; *name;
         name++) {
        char from[16], to[16];
        snprintf(from, sizeof from, "/%s", *name);
        snprintf(to, sizeof to, "/root/%s", *name);
        mkdir(to, 0755); /* a disk image may have none */
        if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
            return fail(problem, 125, errno, "%s cannot be mounted", from);
    }
    if (shm) {
        snprintf(options, sizeof options, "mode=1777,size=%.20s", shm);
        mount(NULL, "/root/dev/shm", NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, options);
    }
    if (init) /* an init system finds it mounted, and leaves in it what is ours */
        mount("run", "/root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=20%");
    else
        mount("sublet", "/root/run/sublet", "tmpfs", safe, "mode=755,size=64k");
    if (!init)
        mount("cgroup2", "/root/sys/fs/cgroup", "cgroup2", safe, NULL);
    return true;
}

static bool present(const char *path) {
    struct stat there;
    return lstat(path, &there) == 0;
}

/* The kernel's own modules, and what loads them where the image has nothing that could. */
static void bring_modules(void) {
    char target[100], source[100], own[120];

    snprintf(target, sizeof target, "/lib/modules/%s", release);
    snprintf(own, sizeof own, "%s/modules.dep", target);
    snprintf(source, sizeof source, "lib/modules/%s", release);
    if (!present(own) && make_directories(target))
        mount(below(source), target, NULL, MS_BIND, NULL);
    if (!present("/sbin/modprobe") && !present("/usr/sbin/modprobe")) {
        snprintf(target, sizeof target, "/proc/%d/fd/%d/bin/modprobe", getpid(), old_root);
        set_kernel("/proc/sys/kernel/modprobe", target);
    }
}

bool root_enter(const struct text *request, struct problem *problem) {
    bool disk = text_is(request, "rootdisk");
    const char *kind = text_get(request, "mode");
    bool init = kind && strcmp(kind, "init") == 0;

    if (!(disk ? partition_mount("disk", problem) : layers_join(problem)) ||
        !bring_kernel_files(request, init, problem) || !switch_root(problem))
        return false;
    if (disk)
        disk_keep("/");
    bring_modules();
    return true;
}
