/* A tar archive to standard output. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

#define XATTR "SCHILY.xattr."

enum { NAME_FIELD = 100, KEY_MOST = 300 };

static char waiting[PIECE_MOST];
static size_t length_waiting;

void put_flush(void) {
    for (size_t from = 0; from < length_waiting;) {
        ssize_t written = write(1, waiting + from, length_waiting - from);
        if (written < 0 && errno != EINTR)
            _exit(1); /* nobody reads */
        from += written > 0 ? (size_t)written : 0;
    }
    length_waiting = 0;
}

void put(const void *data, size_t length) {
    const char *from = data;
    while (length) {
        size_t room = sizeof waiting - length_waiting, step = length < room ? length : room;
        memcpy(waiting + length_waiting, from, step);
        length_waiting += step;
        from += step;
        length -= step;
        if (length_waiting == sizeof waiting)
            put_flush();
    }
}

void put_zeros(size_t length) {
    static const char zeros[TAR_BLOCK];
    for (size_t step; length; length -= step) {
        step = length < sizeof zeros ? length : sizeof zeros;
        put(zeros, step);
    }
}

static size_t missing(uint64_t length) { return (size_t)(-length % TAR_BLOCK); }

/* Octal digits and a zero byte; 0 for what does not fit, and stands in a record. */
static void octal(char *field, int width, uint64_t number) {
    char text[32];
    bool fits = number >> 3 * (width - 1) == 0;
    snprintf(text, sizeof text, "%0*llo", width - 1, fits ? (unsigned long long)number : 0);
    memcpy(field, text, (size_t)width);
}

static void fill(char *field, const char *text) {
    size_t length = strlen(text);
    memcpy(field, text, length < NAME_FIELD ? length : NAME_FIELD);
}

static void put_block(const struct entry *entry, const char *name, uint64_t stored) {
    char block[TAR_BLOCK] = "";
    unsigned sum = 0;
    bool device = entry->kind == TAR_CHARACTER || entry->kind == TAR_BLOCK_DEVICE;

    fill(block, name);
    octal(block + 100, 8, entry->mode & 07777);
    octal(block + 108, 8, entry->uid);
    octal(block + 116, 8, entry->gid);
    octal(block + 124, 12, stored);
    octal(block + 136, 12, entry->mtime < 0 ? UINT64_MAX : (uint64_t)entry->mtime);
    memset(block + 148, ' ', 8);
    block[156] = entry->kind;
    fill(block + 157, entry->link ? entry->link : "");
    memcpy(block + 257, "ustar\00000", 8);
    octal(block + 329, 8, device ? entry->major : 0);
    octal(block + 337, 8, device ? entry->minor : 0);
    for (size_t n = 0; n < sizeof block; n++)
        sum += (unsigned char)block[n];
    snprintf(block + 148, 8, "%06o", sum);
    block[155] = ' ';
    put(block, sizeof block);
}

static void number_record(struct records *records, const char *key, long long number, int width) {
    char text[32];
    if (number >= 0 && (unsigned long long)number >> 3 * (width - 1) == 0)
        return;
    int length = snprintf(text, sizeof text, "%lld", number);
    record_add(records, key, text, (size_t)length);
}

static void text_record(struct records *records, const char *key, const char *text) {
    record_add(records, key, text, strlen(text));
}

/* `LENGTH KEY=VALUE\n`, whose length counts its own digits. */
static size_t record_length(const char *key, size_t length) {
    size_t rest = strlen(key) + length + 3, all = rest;
    for (int n = 0; n < 2; n++)
        all = rest + (size_t)snprintf(NULL, 0, "%zu", all);
    return all;
}

static void put_records(const struct records *records) {
    const char *key, *value;
    size_t length, all = 0;

    for (size_t at = 0; (value = record_next(records, &at, &key, &length));)
        all += record_length(key, length);
    if (!all)
        return;
    put_block(&(struct entry){.kind = 'x', .mode = 0644}, "PaxHeader", all);
    for (size_t at = 0; (value = record_next(records, &at, &key, &length));) {
        char start[KEY_MOST + 32];
        int width = snprintf(start, sizeof start, "%zu %s=", record_length(key, length), key);
        put(start, (size_t)width);
        put(value, length);
        put("\n", 1);
    }
    put_zeros(missing(all));
}

/* The map of a sparse file, in decimal numbers; its length without the padding. */
static size_t sparse_map(const struct entry *entry, char **map) {
    size_t length;
    FILE *stream = open_memstream(map, &length);

    must(stream);
    fprintf(stream, "%zu\n", entry->count);
    for (size_t n = 0; n < entry->count; n++)
        fprintf(stream, "%llu\n%llu\n", (unsigned long long)entry->extents[n].offset,
                (unsigned long long)entry->extents[n].length);
    if (fclose(stream) != 0)
        give_up(ENOMEM, entry->name);
    return length;
}

static void xattr_records(struct records *records, const struct entry *entry) {
    const char *key, *value;
    size_t length;
    char full[KEY_MOST];

    for (size_t at = 0; (value = record_next(&entry->xattrs, &at, &key, &length));) {
        snprintf(full, sizeof full, XATTR "%s", key);
        record_add(records, full, value, length);
    }
}

static const char *sparse_name(const char *name, char short_name[NAME_FIELD + 1]) {
    const char *last = strrchr(name, '/');
    snprintf(short_name, NAME_FIELD + 1, "GNUSparseFile/%.64s", last ? last + 1 : name);
    return short_name;
}

void put_header(const struct entry *entry) {
    struct records records = {0};
    const char *name = entry->name;
    char *map = NULL, short_name[NAME_FIELD + 1];
    size_t map_length = 0;
    uint64_t stored = entry->kind == TAR_FILE ? entry->size : 0;

    xattr_records(&records, entry);
    if (entry->sparse) {
        map_length = sparse_map(entry, &map);
        stored = map_length + missing(map_length);
        for (size_t n = 0; n < entry->count; n++)
            stored += entry->extents[n].length;
        text_record(&records, "GNU.sparse.major", "1");
        text_record(&records, "GNU.sparse.minor", "0");
        text_record(&records, "GNU.sparse.name", name);
        number_record(&records, "GNU.sparse.realsize", (long long)entry->size, 1);
        name = sparse_name(name, short_name);
    } else if (strlen(name) > NAME_FIELD) {
        text_record(&records, "path", name);
    }
    if (entry->link && strlen(entry->link) > NAME_FIELD)
        text_record(&records, "linkpath", entry->link);
    number_record(&records, "uid", (long long)entry->uid, 8);
    number_record(&records, "gid", (long long)entry->gid, 8);
    number_record(&records, "size", (long long)stored, 12);
    number_record(&records, "mtime", entry->mtime, 12);
    put_records(&records);
    put_block(entry, name, stored);
    put(map ? map : "", map_length);
    put_zeros(missing(map_length));
    free(records.data);
    free(map);
}
