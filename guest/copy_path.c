/* The paths that a user gives. The user's own symbolic links are followed; the kernel keeps all of
 * them in the instance's root, which is this process's. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

enum { LINKS_MOST = 40 };

/* What the path leads to when its last component is a link; that need not be there. */
static const char *target(const char *path, char result[PATH_MAX]) {
    struct stat there;
    char link[PATH_MAX], joined[2 * PATH_MAX];

    if (strlen(path) >= PATH_MAX)
        give_up(ENAMETOOLONG, path);
    strcpy(result, path);
    for (int n = 0; n < LINKS_MOST; n++) {
        size_t length = strlen(result);
        if (length == 0 || result[length - 1] == '/' || lstat(result, &there) < 0 ||
            !S_ISLNK(there.st_mode))
            return result;
        ssize_t width = readlink(result, link, sizeof link - 1);
        if (width < 0)
            give_up(errno, path);
        link[width] = '\0';
        const char *slash = strrchr(result, '/');
        int head = link[0] == '/' || !slash ? 0 : (int)(slash - result + 1);
        snprintf(joined, sizeof joined, "%.*s%s", head, result, link);
        if (strlen(joined) >= PATH_MAX)
            give_up(ENAMETOOLONG, path);
        strcpy(result, joined);
    }
    give_up(ELOOP, path);
}

/* Says what is at the path, links followed, and what it leads to. */
void copy_look(const char *path, bool follow) {
    char result[PATH_MAX], bare[PATH_MAX];
    const char *kind = "nothing";
    struct stat there;

    if (follow)
        path = target(path, result);
    snprintf(bare, sizeof bare, "%s", path);
    for (size_t length = strlen(bare); length > 1 && bare[length - 1] == '/'; length--)
        bare[length - 1] = '\0';
    if (stat(bare, &there) == 0)
        kind = S_ISDIR(there.st_mode) ? "directory" : "file";
    else if (errno != ENOENT)
        give_up(errno, path);
    dprintf(1, "%s %s", kind, path);
}

int located(const char *path, bool follow, char *name) {
    char result[PATH_MAX];
    struct stat there;

    const char *found = follow ? target(path, result) : path;
    if (strlen(found) >= PATH_MAX)
        give_up(ENAMETOOLONG, path);
    if (found != result)
        strcpy(result, found);
    char *slash = strrchr(result, '/');
    const char *last = slash ? slash + 1 : result, *head = result;
    if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        strcpy(name, ".");
    } else {
        if (strlen(last) > NAME_MAX)
            give_up(ENAMETOOLONG, path);
        strcpy(name, last);
        if (!slash)
            head = ".";
        else if (slash == result)
            head = "/";
        else
            *slash = '\0';
    }
    int directory = open(head, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
        give_up(errno, path);
    return directory;
}

static int compare(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

char **names_in(int directory) {
    size_t count = 0, room = 64;
    char **names = must(malloc((room + 1) * sizeof *names));
    int again = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = again < 0 ? NULL : fdopendir(again);

    for (struct dirent *each; listing && (each = readdir(listing));) {
        if (strcmp(each->d_name, ".") == 0 || strcmp(each->d_name, "..") == 0)
            continue;
        if (count == room)
            names = must(realloc(names, ((room *= 2) + 1) * sizeof *names));
        names[count++] = must(strdup(each->d_name));
    }
    if (listing)
        closedir(listing);
    names[count] = NULL;
    qsort(names, count, sizeof *names, compare);
    return names;
}
