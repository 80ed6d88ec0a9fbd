/* How a copy ends that cannot go on: what standard error says is read by drivers/complaints.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

int unfinished = -1;
char unfinished_name[40];

static _Noreturn void end(void) {
    if (unfinished >= 0)
        unlinkat(unfinished, unfinished_name, 0);
    _exit(1);
}

_Noreturn void give_up_as(const char *reason, const char *about) {
    dprintf(2, "%s %.4000s", reason, about);
    end();
}

_Noreturn void give_up(int number, const char *path) {
    char reason[16];
    snprintf(reason, sizeof reason, "%d", number);
    give_up_as(reason, path);
}

_Noreturn void corrupt(const char *sentence) { give_up_as("corrupt", sentence); }

void *must(void *memory) {
    if (!memory)
        give_up(ENOMEM, "the copy");
    return memory;
}
