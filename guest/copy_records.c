/* Keys and values: of a pax header, of extended attributes. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "copy.h"

void record_add(struct records *records, const char *key, const void *value, size_t length) {
    uint32_t size = (uint32_t)length;
    size_t width = strlen(key) + 1, needed = records->length + width + sizeof size + length + 1;

    if (needed > RECORDS_MOST)
        corrupt("The archive holds an extended header that is too large.");
    if (needed > records->room) {
        records->room = needed * 2;
        records->data = must(realloc(records->data, records->room));
    }
    char *at = records->data + records->length;
    memcpy(at, key, width);
    memcpy(at + width, &size, sizeof size);
    memcpy(at + width + sizeof size, value, length);
    at[width + sizeof size + length] = '\0';
    records->length = needed;
}

const char *record_next(const struct records *records, size_t *at, const char **key,
                        size_t *length) {
    uint32_t size;

    if (*at >= records->length)
        return NULL;
    *key = records->data + *at;
    const char *value = *key + strlen(*key) + 1;
    memcpy(&size, value, sizeof size);
    value += sizeof size;
    *length = size;
    *at = (size_t)(value - records->data) + size + 1;
    return value;
}

const char *record_get(const struct records *records, const char *key, size_t *length) {
    const char *found = NULL, *name, *value;
    size_t at = 0, size;

    while ((value = record_next(records, &at, &name, &size)))
        if (strcmp(name, key) == 0) {
            found = value;
            if (length)
                *length = size;
        }
    return found;
}

bool xattr_wanted(const char *key) {
    return strncmp(key, "user.", 5) == 0 || strcmp(key, "security.capability") == 0;
}
