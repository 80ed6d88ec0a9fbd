/* What is mounted inside the instance's root: volumes, and file systems in memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "guest.h"

struct volume {
    char serial[32], path[PATH_MAX];
    bool read_only, fill;
};

static bool cut(const char *text, size_t *length, const char *ending) {
    size_t width = strlen(ending);
    if (*length < width || memcmp(text + *length - width, ending, width) != 0)
        return false;
    *length -= width;
    return true;
}

/* `SERIAL PATH ro|rw[ fill]`; a path may have spaces in it. */
static bool read_volume(const char *value, struct volume *volume) {
    size_t length = strlen(value), name = strcspn(value, " ");

    volume->fill = cut(value, &length, " fill");
    volume->read_only = cut(value, &length, " ro");
    if (!(volume->read_only || cut(value, &length, " rw")) || length < name + 2 ||
        name >= sizeof volume->serial || length - name > sizeof volume->path)
        return false;
    snprintf(volume->serial, sizeof volume->serial, "%.*s", (int)name, value);
    snprintf(volume->path, sizeof volume->path, "%.*s", (int)(length - name - 1), value + name + 1);
    return volume->path[0] == '/';
}

/* What the image has there, with owners and times. */
static void fill(const char *path, char *data) {
    char source[PATH_MAX + 4];
    snprintf(source, sizeof source, "%s/.", path);
    tool_run((char *const[]){"busybox", "cp", "-a", source, data, NULL});
}

/* A volume is an ext4 file system; its files are in `data` of it, if it has such a directory. */
static bool mount_volume(const char *value, struct problem *problem) {
    char device[DEVICE_MOST], own[64], data[160];
    struct volume volume;
    struct stat there;

    if (!read_volume(value, &volume))
        return fail(problem, 125, 0, "A volume was not described as it should be.");
    if (!disk_find(volume.serial, device))
        return fail(problem, 125, 0, "The machine has no disk '%s'.", volume.serial);
    snprintf(own, sizeof own, "volumes/%s", volume.serial);
    mkdir(below(own), 0755);
    if (!disk_mount(device, below(own), volume.read_only))
        return fail(problem, 125, errno, "The volume for %s cannot be mounted", volume.path);
    snprintf(data, sizeof data, "%s/data", below(own));
    if (stat(data, &there) < 0)
        snprintf(data, sizeof data, "%s", below(own));
    bool had = stat(volume.path, &there) == 0;
    if (volume.fill && had && S_ISDIR(there.st_mode) && is_empty(data))
        fill(volume.path, data);
    if (!make_directories(volume.path) || mount(data, volume.path, NULL, MS_BIND, NULL) < 0)
        return fail(problem, 125, errno, "The volume cannot be mounted at %s", volume.path);
    return true;
}

static const struct {
    const char *name;
    unsigned long set, clear;
} flags[] = {
    {"ro", MS_RDONLY, 0}, {"rw", 0, MS_RDONLY},         {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID}, {"nodev", MS_NODEV, 0},     {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0}, {"exec", 0, MS_NOEXEC},
};

/* Options of mount(8) into flags and the rest, which is the file system's own business. */
static unsigned long sort_options(char *options, char *rest, size_t size) {
    unsigned long all = MS_NOSUID | MS_NODEV;
    char *state;

    rest[0] = '\0';
    for (char *each = strtok_r(options, ",", &state); each; each = strtok_r(NULL, ",", &state)) {
        size_t n = 0, count = sizeof flags / sizeof *flags, length = strlen(rest);
        while (n < count && strcmp(flags[n].name, each) != 0)
            n++;
        if (n < count)
            all = (all & ~flags[n].clear) | flags[n].set;
        else
            snprintf(rest + length, size - length, "%s%s", length ? "," : "", each);
    }
    return all;
}

/* `PATH OPTIONS`. */
static bool mount_memory(const char *value, struct problem *problem) {
    char path[PATH_MAX], options[256], rest[256];
    const char *space = strrchr(value, ' ');
    int width = space ? (int)(space - value) : (int)strlen(value);

    snprintf(path, sizeof path, "%.*s", width, value);
    snprintf(options, sizeof options, "%s", space ? space + 1 : "");
    unsigned long all = sort_options(options, rest, sizeof rest);
    if (!make_directories(path) || mount("tmpfs", path, "tmpfs", all, rest) < 0)
        return fail(problem, 125, errno, "Memory cannot be mounted at %s", path);
    return true;
}

bool mounts_make(const struct text *request, struct problem *problem) {
    const char *value;

    for (size_t at = 0; (value = text_next(request, "tmpfs", &at));)
        if (!mount_memory(value, problem))
            return false;
    for (size_t at = 0; (value = text_next(request, "disk", &at));)
        if (!mount_volume(value, problem))
            return false;
    return true;
}
