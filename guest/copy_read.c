/* A tar archive from standard input. Sizes are bounded before they are believed, nothing is kept
 * but the entry at hand, and an archive that ends early is an error, not a short archive. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "copy.h"

#define XATTR "SCHILY.xattr."
#define BAD_SPARSE "The archive holds a malformed sparse file."
#define MANY_HOLES "The archive holds a file with too many holes."

static uint64_t left;          /* of the data of the member at hand, with what pads it */
static struct entry *current;
static size_t extent;          /* which is read */
static uint64_t done;          /* of it */
static struct records records; /* of the extended headers before the member */
static char own_name[257], own_link[101];

static uint64_t padded(uint64_t size) { return size + (-size % TAR_BLOCK); }

static uint64_t value_or(const char *key, uint64_t otherwise) {
    size_t length;
    const char *value = record_get(&records, key, &length);
    return value ? decimal_number(value, length) : otherwise;
}

static const char *text_or(const char *key, const char *otherwise) {
    const char *value = record_get(&records, key, NULL);
    return value ? value : otherwise;
}

static void check(const char *block) {
    char text[9] = "", *end;
    uint64_t sum = 8 * ' ';

    memcpy(text, block + 148, 8);
    unsigned long told = strtoul(text, &end, 8);
    for (int n = 0; n < TAR_BLOCK; n++)
        sum += n < 148 || n >= 156 ? (unsigned char)block[n] : 0;
    if (end == text || (*end && *end != ' ') || told != sum)
        corrupt("That is no tar archive, or it is damaged.");
}

static char *extension(uint64_t size) {
    if (size > RECORDS_MOST)
        corrupt("The archive holds an extended header that is too large.");
    char *data = must(malloc(padded(size) + 1));
    take_exactly(data, padded(size));
    data[size] = '\0';
    return data;
}

/* `LENGTH KEY=VALUE\n`, again and again. */
static void gather(char *data, size_t size) {
    for (char *at = data; at < data + size;) {
        char *space, *end;
        unsigned long length = strtoul(at, &space, 10);
        if (space == at || *space != ' ' || length > (size_t)(data + size - at))
            corrupt("The archive holds a malformed pax record.");
        end = at + length;
        char *equals = space < end ? memchr(space, '=', (size_t)(end - space)) : NULL;
        if (!equals || end[-1] != '\n')
            corrupt("The archive holds a malformed pax record.");
        *equals = '\0';
        record_add(&records, space + 1, equals + 1, (size_t)(end - 1 - equals - 1));
        at = end;
    }
}

static void extend(int kind, uint64_t size) {
    char *data = extension(size);
    if (kind == 'x')
        gather(data, size);
    else if (kind == 'L' || kind == 'K')
        record_add(&records, kind == 'L' ? "path" : "linkpath", data, strlen(data));
    free(data);
}

static void add_extent(uint64_t offset, uint64_t length) {
    if (current->count >= EXTENTS_MOST)
        corrupt(MANY_HOLES);
    if ((current->count & (current->count - 1)) == 0) /* room for as many again */
        current->extents = must(realloc(current->extents, 2 * (current->count + 1) *
                                                              sizeof *current->extents));
    current->extents[current->count++] = (struct extent){offset, length};
}

/* GNU's own format: 4 extents in the header, 21 in each block that follows. */
static void old_map(const char *header) {
    char block[TAR_BLOCK];
    const char *at = header + 386;
    int most = 4;
    bool more = header[482] != 0;

    for (;;) {
        for (int n = 0; n < most && at[24 * n]; n++)
            add_extent(header_number(at + 24 * n, 12), header_number(at + 24 * n + 12, 12));
        if (!more)
            return;
        take_exactly(block, sizeof block);
        at = block;
        most = 21;
        more = block[504] != 0;
    }
}

/* One line of the map that precedes the data: a decimal number. */
static uint64_t map_number(char *block, size_t *at) {
    char text[20];
    size_t length = 0;
    for (;;) {
        if (*at == TAR_BLOCK) {
            if (left < TAR_BLOCK)
                corrupt(BAD_SPARSE);
            take_exactly(block, TAR_BLOCK);
            left -= TAR_BLOCK;
            *at = 0;
        }
        char c = block[(*at)++];
        if (c == '\n')
            return decimal_number(text, length);
        if (length == sizeof text)
            corrupt(BAD_SPARSE);
        text[length++] = c;
    }
}

static void new_map(void) {
    char block[TAR_BLOCK];
    size_t at = TAR_BLOCK;
    if (strcmp(text_or("GNU.sparse.major", ""), "1") != 0)
        corrupt("The archive holds a sparse file of an unknown format.");
    uint64_t count = map_number(block, &at);
    if (count > EXTENTS_MOST)
        corrupt(MANY_HOLES);
    while (count--) {
        uint64_t offset = map_number(block, &at);
        add_extent(offset, map_number(block, &at));
    }
}

static void check_extents(void) {
    uint64_t position = 0, sum = 0;
    for (size_t n = 0; n < current->count; n++) {
        struct extent each = current->extents[n];
        if (each.offset < position || each.length > NUMBER_MOST || each.offset > NUMBER_MOST ||
            each.offset + each.length > current->size)
            corrupt(BAD_SPARSE);
        position = each.offset + each.length;
        sum += each.length;
    }
    if (sum > left)
        corrupt(BAD_SPARSE);
}

static void read_map(const char *block, int kind) {
    if (kind == 'S') {
        current->sparse = true;
        current->size = header_number(block + 483, 12);
        old_map(block);
    } else if (record_get(&records, "GNU.sparse.major", NULL)) {
        current->sparse = true;
        current->size = value_or("GNU.sparse.realsize", UINT64_MAX);
        current->name = text_or("GNU.sparse.name", current->name);
        new_map();
    } else if (record_get(&records, "GNU.sparse.size", NULL) ||
               record_get(&records, "GNU.sparse.map", NULL)) {
        corrupt("The archive holds a sparse file of an old format.");
    } else if (current->size) {
        add_extent(0, current->size);
    }
    if (current->size >= NUMBER_MOST)
        corrupt("The archive holds an impossible number.");
    check_extents();
}

static const char *name_of(const char *block) {
    size_t width = memcmp(block + 257, "ustar", 6) == 0 ? strnlen(block + 345, 155) : 0;
    size_t length = strnlen(block, 100);
    memcpy(own_name, block + 345, width);
    own_name[width] = '/';
    width += width > 0;
    memcpy(own_name + width, block, length);
    own_name[width + length] = '\0';
    return text_or("path", own_name);
}

static const char *link_of(const char *block) {
    memcpy(own_link, block + 157, 100);
    own_link[100] = '\0';
    return text_or("linkpath", own_link);
}

/* Whole seconds, which may lie before 1970. */
static int64_t seconds(const char *block) {
    const char *text = record_get(&records, "mtime", NULL);
    char *end;
    if (!text)
        return (int64_t)header_number(block + 136, 12);
    long long value = strtoll(text, &end, 10);
    if (end == text || (*end && *end != '.'))
        corrupt("The archive holds a malformed time.");
    return value;
}

static void collect_xattrs(void) {
    const char *key, *value;
    size_t length, width = strlen(XATTR);
    for (size_t at = 0; (value = record_next(&records, &at, &key, &length));)
        if (strncmp(key, XATTR, width) == 0)
            record_add(&current->xattrs, key + width, value, length);
}

static void describe_member(const char *block, int kind) {
    bool data = kind == '0' || kind == '\0' || kind == '7' || kind == 'S';
    if (!data && (kind < '1' || kind > '6'))
        corrupt("The archive holds an entry of an unknown type.");
    uint64_t stored = value_or("size", header_number(block + 124, 12));
    if (stored >= NUMBER_MOST)
        corrupt("The archive holds an impossible number.");
    left = data ? padded(stored) : 0;
    current->name = name_of(block);
    current->link = link_of(block);
    current->mode = header_number(block + 100, 8) & 07777;
    current->uid = value_or("uid", header_number(block + 108, 8));
    current->gid = value_or("gid", header_number(block + 116, 8));
    current->mtime = seconds(block);
    if (data) {
        current->size = stored;
        read_map(block, kind);
    }
    size_t length = strlen(current->name);
    current->kind = !data ? (char)kind
                    : length && current->name[length - 1] == '/' ? TAR_DIRECTORY : TAR_FILE;
    collect_xattrs();
}

bool member_next(struct entry *entry) {
    static const char empty[TAR_BLOCK];
    char block[TAR_BLOCK];

    take_away(left);
    left = records.length = 0;
    free(entry->xattrs.data);
    free(entry->extents);
    *entry = (struct entry){0};
    current = entry;
    extent = 0;
    done = 0;
    for (;;) {
        take_exactly(block, sizeof block);
        if (memcmp(block, empty, sizeof block) == 0)
            break;
        check(block);
        if (block[156] != 'x' && block[156] != 'g' && block[156] != 'L' && block[156] != 'K') {
            describe_member(block, (unsigned char)block[156]);
            return true;
        }
        extend(block[156], header_number(block + 124, 12));
    }
    for (size_t got; take(PIECE_MOST, &got);) {
    }
    return false;
}

size_t member_data(uint64_t *offset, const char **data) {
    size_t got;

    while (extent < current->count && done == current->extents[extent].length) {
        extent++;
        done = 0;
    }
    if (extent == current->count)
        return 0;
    struct extent part = current->extents[extent];
    uint64_t rest = part.length - done;
    *data = take(rest < PIECE_MOST ? (size_t)rest : PIECE_MOST, &got);
    if (!*data)
        corrupt(TOO_EARLY);
    *offset = part.offset + done;
    done += got;
    left -= got;
    return got;
}
