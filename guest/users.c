/* Who a process runs as, by the image's own passwd(5) and group(5). The rules are those of
 * containers (drivers/container/rootfs.py, find_user). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

enum { LINE = 4096, FIELDS = 8, MOST_GROUPS = 64 };

static bool number(const char *text, unsigned *value) {
    char *end;
    size_t length = strlen(text);
    if (!length || length > 9 || strspn(text, "0123456789") != length)
        return false;
    *value = (unsigned)strtoul(text, &end, 10);
    return true;
}

static size_t split(char *line, char **fields) {
    size_t count = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *field = line; field && count < FIELDS; count++) {
        fields[count] = field;
        field = strchr(field, ':');
        if (field)
            *field++ = '\0';
    }
    return count;
}

/* The first line whose name, or else whose number, is `key`, in `line` and `fields`. */
static bool find(const char *path, const char *key, size_t width, char *line, char **fields) {
    unsigned id;
    for (int field = 0; field <= 2; field += 2) {
        FILE *file = fopen(path, "re");
        while (file && fgets(line, LINE, file)) {
            if (split(line, fields) < width || strcmp(fields[field], key) != 0 ||
                !number(fields[2], &id))
                continue;
            fclose(file);
            return true;
        }
        if (file)
            fclose(file);
    }
    return false;
}

static bool group_id(const char *name, gid_t *gid, struct problem *problem) {
    char line[LINE], *fields[FIELDS];
    const char *text = find("/etc/group", name, 3, line, fields) ? fields[2] : name;
    return number(text, gid) || fail(problem, 124, 0, "The image has no group '%s'.", name);
}

static void join(struct user *user, gid_t gid) {
    for (size_t n = 0; n < user->count; n++)
        if (user->groups[n] == gid)
            return;
    if (user->count < MOST_GROUPS)
        user->groups[user->count++] = gid;
}

static void join_own(struct user *user, const char *name) {
    char line[LINE], *fields[FIELDS], *rest;
    unsigned gid;
    FILE *file = fopen("/etc/group", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (split(line, fields) < 4 || !number(fields[2], &gid))
            continue;
        for (char *each = strtok_r(fields[3], ",", &rest); each; each = strtok_r(NULL, ",", &rest))
            if (strcmp(each, name) == 0)
                join(user, gid);
    }
    if (file)
        fclose(file);
}

bool user_find(const struct text *request, struct user *user, struct problem *problem) {
    char line[LINE], *fields[FIELDS], name[256] = "0";
    const char *text = text_get(request, "user"), *group = NULL, *each;
    size_t at = 0;

    *user = (struct user){.home = "/"};
    if (text && text[0]) {
        group = strchr(text, ':');
        snprintf(name, sizeof name, "%.*s", (int)strcspn(text, ":"), text);
        if (!name[0])
            strcpy(name, "0");
    }
    bool known = find("/etc/passwd", name, 6, line, fields);
    if (!number(known ? fields[2] : name, &user->uid))
        return fail(problem, 124, 0, "The image has no user '%s'.", name);
    if (known && fields[5][0])
        snprintf(user->home, sizeof user->home, "%s", fields[5]);
    if (known && !number(fields[3], &user->gid))
        user->gid = 0;
    if (group && group[1]) {
        if (!group_id(group + 1, &user->gid, problem))
            return false;
    } else if (known) {
        join_own(user, fields[0]);
    }
    while ((each = text_next(request, "group", &at))) {
        gid_t gid;
        if (!group_id(each, &gid, problem))
            return false;
        join(user, gid);
    }
    return true;
}
