/* What the machine was told to be: `key=value` texts, each ended by a zero byte. A guest that
 * has rebooted by itself is told it again, with the time of now and entropy of its own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "machine.h"

enum { MOST = 16 << 20, ENTROPY = 64 };

static char *text;
static size_t used, room, at;
static bool told; /* all, but for the empty packet that ends it */

static bool is_fresh(const char *entry) {
    return strncmp(entry, "time=", 5) == 0 || strncmp(entry, "entropy=", 8) == 0;
}

static bool add(const char *data, size_t length) {
    if (length > MOST - used)
        return false;
    if (used + length > room) {
        size_t wanted = 2 * (used + length);
        char *larger = realloc(text, wanted);
        if (!larger)
            return false;
        text = larger;
        room = wanted;
    }
    memcpy(text + used, data, length);
    used += length;
    return true;
}

bool configuration_keep(const char *data, size_t length) { return add(data, length); }

/* Take what is not true any more out of it. What has no end is no entry. */
static void drop_stale(void) {
    size_t to = 0;
    for (size_t from = 0; from < used;) {
        size_t length = strnlen(text + from, used - from) + 1;
        if (from + length > used)
            break;
        if (!is_fresh(text + from)) {
            memmove(text + to, text + from, length);
            to += length;
        }
        from += length;
    }
    used = to;
}

static bool add_fresh(void) {
    char entry[2 * ENTROPY + 64];
    unsigned char bytes[ENTROPY];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(entry, sizeof entry, "time=%lld.%09ld", (long long)now.tv_sec,
                          now.tv_nsec);
    if (!add(entry, (size_t)length + 1) || getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    length = snprintf(entry, sizeof entry, "entropy=");
    for (int n = 0; n < ENTROPY; n++)
        length += snprintf(entry + length, 3, "%02x", bytes[n]);
    return add(entry, (size_t)length + 1);
}

bool configuration_rewind(void) {
    at = 0;
    told = false;
    if (!used)
        return false;
    drop_stale();
    return add_fresh();
}

ssize_t configuration_next(char *data, size_t size) {
    if (told)
        return -1;
    size_t length = used - at < size ? used - at : size;
    memcpy(data, text + at, length);
    at += length;
    told = length == 0;
    return (ssize_t)length;
}
