/* `files watch`: what happens in a directory, as inotify(7) tells it: texts `TYPE`, `PATH` and, of
 * what was moved, where it is now, each ended by a zero byte. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "copy.h"

enum { DIRECTORIES_MOST = 8192, PATH_MOST = 1 << 14, MOMENT = 50 /* ms */ };
static const uint32_t events = IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE |
                               IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF;
static const uint32_t below_only = IN_ONLYDIR | IN_DONT_FOLLOW;

static struct place {
    int number;
    char *path;
} places[DIRECTORIES_MOST];
static size_t count;
static int notify = -1, root;
static bool recursive, over;
static char last[2 * PATH_MOST + 16]; /* what was told last: many writes are told as one */
static struct {
    uint32_t cookie;
    bool directory;
    char path[PATH_MOST]; /* empty: nothing */
} moved;

static void tell(const char *type, const char *path, const char *to) {
    static char words[sizeof last];
    size_t one = strlen(type) + 1, two = strlen(path) + 1, three = strlen(to) + 1;

    if (one + two + three > sizeof words)
        return;
    memset(words, 0, sizeof words);
    memcpy(words, type, one);
    memcpy(words + one, path, two);
    memcpy(words + one + two, to, three);
    if (memcmp(words, last, sizeof words) == 0)
        return;
    memcpy(last, words, sizeof words);
    put(words, one + two + three);
}

static struct place *find(int number) {
    for (size_t n = 0; n < count; n++)
        if (places[n].number == number)
            return &places[n];
    return NULL;
}

static void forget(struct place *place) {
    free(place->path);
    *place = places[--count];
}

/* -1 where it is not there any more */
static int add(const char *path, uint32_t mask) {
    if (count == DIRECTORIES_MOST)
        give_up(E2BIG, path);
    int number = inotify_add_watch(notify, path, mask);
    if (number < 0 && !gone(errno))
        give_up(errno, path);
    if (number < 0)
        return -1;
    struct place *known = find(number);
    if (known)
        free(known->path);
    else
        known = &places[count++];
    *known = (struct place){number, must(strdup(path))};
    return number;
}

/* No recursion: the depth is the tenant's choice. */
static void add_below(const char *path, bool told) {
    char entry[PATH_MOST];
    char **waiting = must(malloc((DIRECTORIES_MOST + 1) * sizeof *waiting));
    size_t left = 1;

    for (waiting[0] = must(strdup(path)); left > 0;) {
        char *here = waiting[--left];
        DIR *listing = opendir(here);
        for (struct dirent *each; listing && (each = readdir(listing));) {
            struct stat status;
            if (strcmp(each->d_name, ".") == 0 || strcmp(each->d_name, "..") == 0 ||
                snprintf(entry, sizeof entry, "%s/%s", here[1] ? here : "", each->d_name) >=
                    (int)sizeof entry)
                continue;
            if (told)
                tell("created", entry, "");
            if (lstat(entry, &status) == 0 && S_ISDIR(status.st_mode) &&
                add(entry, events | below_only) >= 0 && left <= DIRECTORIES_MOST)
                waiting[left++] = must(strdup(entry));
        }
        if (listing)
            closedir(listing);
        free(here);
    }
    free(waiting);
}

/* A directory has another path, or (NULL) none that is watched. */
static void renamed(const char *before, const char *after) {
    size_t width = strlen(before);

    for (size_t n = count; n-- > 0;) {
        char *path = places[n].path, *changed;
        if (strncmp(path, before, width) != 0 || (path[width] && path[width] != '/'))
            continue;
        if (!after) {
            inotify_rm_watch(notify, places[n].number);
            forget(&places[n]);
            continue;
        }
        if (asprintf(&changed, "%s%s", after, path + width) < 0)
            give_up(ENOMEM, path);
        places[n].path = changed;
        free(path);
    }
}

/* What has been moved to where nobody watches. */
static void settle(void) {
    if (!*moved.path)
        return;
    if (moved.directory)
        renamed(moved.path, NULL);
    tell("deleted", moved.path, "");
    *moved.path = '\0';
}

static void itself(const struct place *place, uint32_t mask) {
    if (place->number != root)
        return;
    if (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))
        tell("deleted", place->path, "");
    else if (mask & (IN_MODIFY | IN_ATTRIB) && !(mask & IN_ISDIR))
        tell("modified", place->path, "");
    over = over || mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED);
}

static void within(const struct inotify_event *event, const char *path) {
    bool directory = event->mask & IN_ISDIR;

    if (event->mask & IN_MOVED_FROM) {
        moved.cookie = event->cookie;
        moved.directory = directory;
        snprintf(moved.path, sizeof moved.path, "%s", path);
    } else if (event->mask & IN_MOVED_TO && *moved.path) {
        if (directory)
            renamed(moved.path, path);
        tell("moved", moved.path, path);
        *moved.path = '\0';
    } else if (event->mask & (IN_CREATE | IN_MOVED_TO)) {
        tell("created", path, "");
        if (directory && recursive && add(path, events | below_only) >= 0)
            add_below(path, true);
    } else if (event->mask & IN_DELETE) {
        tell("deleted", path, "");
    } else if (event->mask & (IN_MODIFY | IN_ATTRIB)) {
        tell("modified", path, "");
    }
}

static void happened(const struct inotify_event *event) {
    char path[PATH_MOST];
    struct place *place = find(event->wd), *top = find(root);

    if (event->mask & IN_Q_OVERFLOW) {
        tell("lost", top ? top->path : "/", "");
        return;
    }
    if (!place)
        return;
    if (*moved.path && !(event->mask & IN_MOVED_TO && event->cookie == moved.cookie))
        settle();
    if (!event->len) {
        itself(place, event->mask);
        if (event->mask & IN_IGNORED && (place = find(event->wd)))
            forget(place);
    } else if (snprintf(path, sizeof path, "%s/%s", place->path[1] ? place->path : "",
                        event->name) < (int)sizeof path) {
        within(event, path);
    }
}

void copy_watch(const char *path, bool all) {
    static char data[1 << 16] __attribute__((aligned(8)));
    char bare[PATH_MOST];
    struct stat status;

    if (strlen(path) >= sizeof bare)
        give_up(ENAMETOOLONG, path);
    strcpy(bare, path);
    for (size_t length = strlen(bare); length > 1 && bare[length - 1] == '/'; length--)
        bare[length - 1] = '\0';
    notify = inotify_init1(IN_CLOEXEC);
    if (notify < 0 || stat(bare, &status) < 0 || (root = add(bare, events)) < 0)
        give_up(errno, path);
    recursive = all && S_ISDIR(status.st_mode);
    if (recursive)
        add_below(bare, false);
    tell("ready", bare, "");
    put_flush();
    while (!over) {
        ssize_t length = read(notify, data, sizeof data);
        if (length <= 0)
            give_up(errno, path);
        *last = '\0';
        for (char *at = data; at < data + length;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)at;
            happened(event);
            at += sizeof *event + event->len;
        }
        struct pollfd more = {.fd = notify, .events = POLLIN};
        if (*moved.path && poll(&more, 1, MOMENT) == 0) /* no other end of the move */
            settle();
        put_flush();
    }
}
