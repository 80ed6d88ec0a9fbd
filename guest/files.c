/* Small files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

static bool write_all(int fd, const char *text, size_t length) {
    while (length) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        text += written;
        length -= (size_t)written;
    }
    return true;
}

static bool write_as(const char *path, const char *text, size_t length, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return false;
    bool done = write_all(fd, text, length);
    return close(fd) == 0 && done;
}

bool write_file(const char *path, const char *text, size_t length) {
    return write_as(path, text, length, 0644);
}

void set_kernel(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, text, strlen(text));
        close(fd);
    }
}

size_t read_file(const char *path, char *text, size_t size) {
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && length < size - 1) {
        ssize_t got = read(fd, text + length, size - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
    if (fd >= 0)
        close(fd);
    return length;
}

bool make_directories(const char *path) {
    char part[PATH_MAX];
    struct stat there;
    if (stat(path, &there) == 0 && S_ISDIR(there.st_mode))
        return true;
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return mkdir(part, 0755) == 0 ||
           (errno == EEXIST && stat(part, &there) == 0 && S_ISDIR(there.st_mode));
}

/* A link in its place is replaced, not followed: resolv.conf often leads to where a service of
 * the image would write later. */
bool place_file(const char *path, const char *text, size_t length, mode_t mode) {
    char new[PATH_MAX], directory[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash || snprintf(new, sizeof new, "%s.sublet-new", path) >= (int)sizeof new)
        return false;
    snprintf(directory, sizeof directory, "%.*s", (int)(slash - path), path);
    if (directory[0] && !make_directories(directory))
        return false;
    if (write_as(new, text, length, mode) && rename(new, path) == 0)
        return true;
    int problem = errno;
    unlink(new);
    errno = problem;
    return false;
}
