/* An instance's log: one line each, time, stream, F (full) or P (partial), text, as in
 * Kubernetes' CRI logging format. A file that is full becomes `.1`, that one `.2`, and so on.
 * What cannot be written is lost: a full disk is no reason for the instance to wait. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "protocol.h"

static int directory = -1, file = -1;
static unsigned char files;
static off_t size, limit;
static char name[NAME_MAX - 8];

static void log_reopen(void) {
    struct stat now;
    file = openat(directory, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    size = file >= 0 && fstat(file, &now) == 0 ? now.st_size : 0;
}

int log_open(const char *path, off_t most, int count) {
    char copy[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(path) >= sizeof copy || strlen(slash + 1) >= sizeof name)
        return -1;
    memcpy(copy, path, strlen(path) + 1);
    strcpy(name, slash + 1);
    limit = most;
    files = (unsigned char)(count < 1 ? 1 : count > UCHAR_MAX ? UCHAR_MAX : count);
    directory = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -1;
    log_reopen();
    return file;
}

static void numbered(char *text, size_t room, unsigned char number) {
    if (number)
        snprintf(text, room, "%s.%d", name, number);
    else
        snprintf(text, room, "%s", name);
}

static void rotate(void) {
    char from[NAME_MAX], to[NAME_MAX];
    if (files > 1) {
        close(file);
        for (unsigned char number = files - 1; number > 0; number--) {
            numbered(from, sizeof from, (unsigned char)(number - 1));
            numbered(to, sizeof to, number);
            renameat(directory, from, directory, to);
        }
        log_reopen();
    } else if (ftruncate(file, 0) == 0) {
        size = 0;
    }
}

static void append(const char *line, size_t length) {
    if (file < 0)
        log_reopen();
    if (file < 0)
        return;
    ssize_t written = write(file, line, length);
    if (written == (ssize_t)length)
        size += written;
    else if (written > 0 && ftruncate(file, size) < 0) /* no half lines */
        size += written;
}

void log_write(const char *stream, const char *data, size_t length) {
    static char lines[2 * MESSAGE + 128];
    struct timespec now;
    struct tm parts;
    char stamp[32], head[80];
    size_t used = 0;

    if (directory < 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    while (length) {
        const char *newline = memchr(data, '\n', length);
        size_t text = newline ? (size_t)(newline - data) : length;
        int lead = snprintf(head, sizeof head, "%s.%09ldZ %s %c ", stamp, now.tv_nsec, stream,
                            newline ? 'F' : 'P');
        size_t whole = (size_t)lead + text + 1;
        bool full = limit && size > 0 && size + (off_t)(used + whole) > limit;
        if (used && (full || used + whole > sizeof lines)) {
            append(lines, used);
            used = 0;
        }
        if (full && file >= 0 && size > 0)
            rotate();
        memcpy(lines + used, head, (size_t)lead);
        memcpy(lines + used + lead, data, text);
        lines[used + whole - 1] = '\n';
        used += whole;
        text += newline ? 1 : 0;
        data += text;
        length -= text;
    }
    append(lines, used);
}
