/* `online CPUS BLOCKS WITHIN`: so many CPUs and blocks of memory will be plugged in. It says when
 * it has seen what is there already, brings what comes on line, and ends when all is there: with
 * exit code 0, or 1 after WITHIN milliseconds. The kernel takes memory by itself, and an image's
 * own rules (udev) may be quicker with both. What was off line before stays so.
 * Source: Documentation/admin-guide/mm/memory-hotplug.rst, core-api/cpu_hotplug.rst of Linux. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

enum { NUMBERS = 1 << 16 };

struct kind {
    const char *name, *file, *is, *set; /* what its file says when it is on line */
    long wanted;
    bool known[NUMBERS];
};

static struct kind cpus = {.name = "cpu", .file = "online", .is = "1", .set = "1"};
static struct kind blocks = {.name = "memory", .file = "state", .is = "online", .set = "online"};

static bool is_online(const struct kind *kind, long number) {
    char path[128], text[32];

    snprintf(path, sizeof path, "/sys/devices/system/%s/%s%ld/%s", kind->name, kind->name, number,
             kind->file);
    for (int again = 0; again < 2; again++) {
        size_t length = read_file(path, text, sizeof text);
        while (length && text[length - 1] == '\n')
            text[--length] = '\0';
        if (strcmp(text, kind->is) == 0)
            return true;
        if (!again)
            set_kernel(path, kind->set);
    }
    return false;
}

/* How many are on line of those that were not there at first. */
static long look(struct kind *kind, bool first) {
    char path[64];
    long found = 0;

    snprintf(path, sizeof path, "/sys/devices/system/%s", kind->name);
    DIR *all = opendir(path);
    for (struct dirent *each; all && (each = readdir(all));) {
        const char *digits = each->d_name + strlen(kind->name);
        if (strncmp(each->d_name, kind->name, strlen(kind->name)) != 0 ||
            !isdigit((unsigned char)*digits))
            continue;
        long number = atol(digits);
        if (number < 0 || number >= NUMBERS)
            continue;
        if (first)
            kind->known[number] = true;
        else if (!kind->known[number] && is_online(kind, number))
            found++;
    }
    if (all)
        closedir(all);
    return found;
}

int online_main(int count, char **argv) {
    const struct timespec moment = {.tv_nsec = 10000000};

    if (count != 4)
        return 2;
    close_range(3, ~0U, 0); /* among them, what tells the agent that this has begun */
    cpus.wanted = atol(argv[1]);
    blocks.wanted = atol(argv[2]);
    long long until = milliseconds() + atol(argv[3]);
    look(&cpus, true);
    look(&blocks, true);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        return 1;
    while (look(&cpus, false) < cpus.wanted || look(&blocks, false) < blocks.wanted) {
        if (milliseconds() > until)
            return 1;
        nanosleep(&moment, NULL);
    }
    return 0;
}
