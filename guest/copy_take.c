/* Bytes and numbers of an archive that comes from standard input. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

#define BAD_NUMBER "The archive holds a malformed number."

static char piece[PIECE_MOST];
static size_t from, to;

const char *take(size_t most, size_t *length) {
    if (from == to) {
        ssize_t got;
        while ((got = read(0, piece, sizeof piece)) < 0 && errno == EINTR) {
        }
        if (got <= 0)
            return NULL;
        from = 0;
        to = (size_t)got;
    }
    const char *found = piece + from;
    *length = to - from < most ? to - from : most;
    from += *length;
    return found;
}

void take_exactly(char *data, size_t length) {
    while (length) {
        size_t got;
        const char *found = take(length, &got);
        if (!found)
            corrupt(TOO_EARLY);
        memcpy(data, found, got);
        data += got;
        length -= got;
    }
}

void take_away(uint64_t length) {
    while (length) {
        size_t got;
        if (!take(length < PIECE_MOST ? (size_t)length : PIECE_MOST, &got))
            corrupt(TOO_EARLY);
        length -= got;
    }
}

/* Octal text, or GNU's base 256 with the top bit set. */
uint64_t header_number(const char *field, size_t width) {
    const unsigned char *at = (const unsigned char *)field, *end = at + width;
    uint64_t value = 0;
    bool binary = *at == 0x80;

    for (at += binary; !binary && at < end && (*at == ' ' || *at == 0); at++) {
    }
    for (; at < end; at++) {
        if (!binary && (*at == ' ' || *at == 0))
            break;
        if (value >= NUMBER_MOST >> 8 || (!binary && (*at < '0' || *at > '7')))
            corrupt(BAD_NUMBER);
        value = binary ? value << 8 | *at : value << 3 | (uint64_t)(*at - '0');
    }
    return value;
}

uint64_t decimal_number(const char *text, size_t length) {
    uint64_t value = 0;
    if (length == 0 || length > 18)
        corrupt(BAD_NUMBER);
    for (; length; text++, length--) {
        if (*text < '0' || *text > '9')
            corrupt(BAD_NUMBER);
        value = value * 10 + (uint64_t)(*text - '0');
    }
    return value;
}
