/* Requests: `key=value` texts, each ended by a zero byte. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

bool text_add(struct text *text, const void *data, size_t length) {
    size_t needed = text->length + length + 1; /* a zero byte ends it in any case */
    if (needed > REQUEST_MOST)
        return false;
    if (needed > text->room) {
        size_t room = needed < MESSAGE ? MESSAGE : needed * 2;
        char *grown = realloc(text->data, room);
        if (!grown)
            return false;
        text->data = grown;
        text->room = room;
    }
    if (length)
        memcpy(text->data + text->length, data, length);
    text->length += length;
    text->data[text->length] = '\0';
    return true;
}

void text_free(struct text *text) {
    free(text->data);
    *text = (struct text){0};
}

const char *text_next(const struct text *text, const char *key, size_t *at) {
    size_t width = strlen(key);
    while (*at < text->length) {
        const char *item = text->data + *at;
        *at += strlen(item) + 1;
        if (strncmp(item, key, width) == 0 && item[width] == '=')
            return item + width + 1;
    }
    return NULL;
}

const char *text_get(const struct text *text, const char *key) {
    size_t at = 0;
    return text_next(text, key, &at);
}

bool text_is(const struct text *text, const char *key) {
    const char *value = text_get(text, key);
    return value && strcmp(value, "1") == 0;
}

char **text_all(const struct text *text, const char *key) {
    size_t count = 0, at = 0;
    while (text_next(text, key, &at))
        count++;
    char **all = calloc(count + 2, sizeof *all);
    at = 0;
    for (size_t n = 0; all && n < count; n++)
        all[n] = (char *)text_next(text, key, &at);
    return all;
}

bool fail(struct problem *problem, int code, int number, const char *format, ...) {
    va_list arguments;

    problem->code = code;
    va_start(arguments, format);
    int length = vsnprintf(problem->text, sizeof problem->text, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    if (number && (size_t)length < sizeof problem->text)
        snprintf(problem->text + length, sizeof problem->text - (size_t)length, ": %s.",
                 strerror(number));
    return false;
}
