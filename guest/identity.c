/* Who this machine is: name, machine id, entropy, clock, and the files that the host gives it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { ENTROPY = 64 };

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;
}

/* Into the pool, and out of it at once: without RNDRESEEDCRNG two clones of one memory give the
 * same bytes for up to a minute (random(4)). */
void entropy_add(const char *hex) {
    struct {
        struct rand_pool_info head;
        unsigned char bytes[ENTROPY];
    } pool = {.head = {.entropy_count = ENTROPY * 8, .buf_size = ENTROPY}};

    if (!hex || strlen(hex) < 2 * ENTROPY)
        return;
    for (size_t n = 0; n < ENTROPY; n++)
        pool.bytes[n] = (unsigned char)(digit(hex[2 * n]) << 4 | digit(hex[2 * n + 1]));
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        printf("sublet: the random number generator was not reseeded: %s\n", strerror(errno));
    if (fd >= 0)
        close(fd);
    explicit_bzero(&pool, sizeof pool);
}

void clock_set(const char *text) {
    char fraction[10] = "000000000";
    struct timespec now;
    char *end;

    if (!text)
        return;
    now.tv_sec = (time_t)strtoll(text, &end, 10);
    if (*end == '.')
        for (size_t n = 0; n < 9 && end[1 + n] >= '0' && end[1 + n] <= '9'; n++)
            fraction[n] = end[1 + n];
    now.tv_nsec = strtol(fraction, NULL, 10);
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        printf("sublet: the clock was not set: %s\n", strerror(errno));
}

/* A new one with each start, wake and fork, for programs that keep random numbers of their own. */
static void leave_generation(void) {
    char uuid[64];
    size_t length = read_file("/proc/sys/kernel/random/uuid", uuid, sizeof uuid);
    place_file("/run/sublet/generation", uuid, length, 0644);
}

static bool place_line(const char *path, const char *text, mode_t permissions) {
    char line[128];
    int length = snprintf(line, sizeof line, "%.*s\n", (int)sizeof line - 2, text);
    return place_file(path, line, (size_t)length, permissions);
}

/* An init system names the machine by /etc/hostname. */
bool identity_set(const struct text *request, struct problem *problem) {
    const char *hostname = text_get(request, "hostname"), *id = text_get(request, "machine-id");
    struct stat there;

    if (hostname && sethostname(hostname, strlen(hostname)) < 0)
        return fail(problem, 125, errno, "The machine cannot be named %s", hostname);
    if (hostname && mode == INIT && !place_line("/etc/hostname", hostname, 0644))
        return fail(problem, 125, errno, "/etc/hostname cannot be written");
    if (id && (mode == INIT || lstat("/etc/machine-id", &there) == 0) &&
        !place_line("/etc/machine-id", id, 0444))
        return fail(problem, 125, errno, "/etc/machine-id cannot be written");
    leave_generation();
    return true;
}

/* `PATH\nCONTENT`. Seeds of cloud-init may hold secrets. */
bool files_place(const struct text *request, struct problem *problem) {
    const char *value;

    for (size_t at = 0; (value = text_next(request, "file", &at));) {
        char path[512];
        const char *content = strchr(value, '\n');
        if (!content || content - value >= (long)sizeof path)
            return fail(problem, 125, 0, "A file was not described as it should be.");
        snprintf(path, sizeof path, "%.*s", (int)(content - value), value);
        mode_t mode = strncmp(path, "/var/lib/cloud/", 15) == 0 ? 0600 : 0644;
        if (!place_file(path, content + 1, strlen(content + 1), mode))
            return fail(problem, 125, errno, "%s cannot be written", path);
    }
    return true;
}
