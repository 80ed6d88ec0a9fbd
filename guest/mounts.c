/* What is mounted inside the instance's root: volumes, and file systems in memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "guest.h"

/* `SERIAL PATH ro|rw`. A volume is an ext4 file system; its files are in `data` of it, if it has
 * such a directory. */
static bool mount_volume(const char *value, struct problem *problem) {
    char serial[32], path[PATH_MAX], device[DEVICE_MOST], own[64], data[160];
    const char *end = strrchr(value, ' '), *space = strchr(value, ' ');
    struct stat there;

    if (!end || end == space || space - value >= (long)sizeof serial ||
        end - space > (long)sizeof path)
        return fail(problem, 125, 0, "A volume was not described as it should be.");
    snprintf(serial, sizeof serial, "%.*s", (int)(space - value), value);
    snprintf(path, sizeof path, "%.*s", (int)(end - space - 1), space + 1);
    bool read_only = strcmp(end, " ro") == 0;
    if (!disk_find(serial, device))
        return fail(problem, 125, 0, "The machine has no disk '%s'.", serial);
    snprintf(own, sizeof own, "volumes/%s", serial);
    mkdir(below(own), 0755);
    if (mount(device, below(own), "ext4", read_only ? MS_RDONLY : 0, NULL) < 0)
        return fail(problem, 125, errno, "The volume for %s cannot be mounted", path);
    if (!read_only)
        disk_keep(below(own));
    snprintf(data, sizeof data, "%s/data", below(own));
    if (stat(data, &there) < 0)
        snprintf(data, sizeof data, "%s", below(own));
    if (!make_directories(path) || mount(data, path, NULL, MS_BIND, NULL) < 0)
        return fail(problem, 125, errno, "The volume cannot be mounted at %s", path);
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
