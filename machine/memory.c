/* The private pages of a machine's memory, over a copy of what it was mapped from.
 *
 *   sublet-machine memory PID INODE OUTPUT
 *
 * A machine's memory is a private mapping of a file: what the guest has written since it was
 * mapped is in pages of QEMU's alone (proc(5), pagemap: present or swapped, and not of a file).
 * OUTPUT is as large as the mapping. Pages of zeros become holes. Prints the bytes written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "machine.h"

enum { PAGE = 4096, RUN = 256, AT_ONCE = 8192, AREAS = 64 };

#define PRESENT_OR_SWAPPED (3ULL << 62)
#define OF_A_FILE (1ULL << 61)

struct area {
    uint64_t from, to, offset;
    unsigned major, minor;
};

static pid_t pid;
static int output, pagemap;
static uint64_t written;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    int number = errno;
    va_start(arguments, format);
    fprintf(stderr, "sublet-machine memory: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, number ? ": %s.\n" : ".\n", strerror(number));
    exit(1);
}

static bool is_zero(const char *page) {
    const uint64_t *word = (const uint64_t *)(const void *)page;
    for (size_t n = 0; n < PAGE / sizeof *word; n++)
        if (word[n])
            return false;
    return true;
}

static void write_out(const char *data, size_t length, uint64_t at) {
    for (size_t done = 0; done < length;) {
        ssize_t wrote = pwrite(output, data + done, length - done, (off_t)(at + done));
        if (wrote <= 0 && errno != EINTR)
            fail("the output cannot be written");
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    written += length;
}

static void punch(const char *zeros, size_t length, uint64_t at) {
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (fallocate(output, mode, (off_t)at, (off_t)length) < 0)
        write_out(zeros, length, at); /* not every file system can */
}

/* Pages that follow each other: those of zeros apart. */
static void put(const char *data, size_t pages, uint64_t at) {
    for (size_t from = 0, to; from < pages; from = to) {
        bool zero = is_zero(data + from * PAGE);
        for (to = from + 1; to < pages && is_zero(data + to * PAGE) == zero; to++) {
        }
        size_t length = (to - from) * PAGE;
        (zero ? punch : write_out)(data + from * PAGE, length, at + from * PAGE);
    }
}

static void copy(uint64_t address, size_t pages, uint64_t at) {
    static char data[RUN * PAGE] __attribute__((aligned(PAGE)));
    while (pages) {
        size_t now = pages < RUN ? pages : RUN;
        struct iovec ours = {data, now * PAGE}, theirs = {(void *)address, now * PAGE};
        if (process_vm_readv(pid, &ours, 1, &theirs, 1, 0) != (ssize_t)(now * PAGE))
            fail("the memory at %llx cannot be read", (unsigned long long)address);
        put(data, now, at);
        pages -= now;
        address += now * PAGE;
        at += now * PAGE;
    }
}

static bool is_private(uint64_t entry) {
    return entry & PRESENT_OR_SWAPPED && !(entry & OF_A_FILE);
}

/* The pages of `entries`, which begin at `address` and at that offset of the output. */
static void copy_private(const uint64_t *entries, size_t count, uint64_t address, uint64_t at) {
    for (size_t from = 0, to; from < count; from = to + 1) {
        for (; from < count && !is_private(entries[from]); from++) {
        }
        for (to = from; to < count && is_private(entries[to]); to++) {
        }
        if (to > from)
            copy(address + from * PAGE, to - from, at + from * PAGE);
    }
}

static void copy_area(const struct area *area) {
    static uint64_t entries[AT_ONCE];
    for (uint64_t address = area->from; address < area->to;) {
        uint64_t left = (area->to - address) / PAGE;
        size_t now = left < AT_ONCE ? (size_t)left : AT_ONCE;
        size_t wanted = now * sizeof entries[0];
        off_t place = (off_t)(address / PAGE * sizeof entries[0]);
        if (pread(pagemap, entries, wanted, place) != (ssize_t)wanted)
            fail("the pages of process %d cannot be listed", pid);
        copy_private(entries, now, address, area->offset + (address - area->from));
        address += now * PAGE;
    }
}

/* Where the file is mapped, privately. Inode numbers of different file systems may be the same:
 * the mapping that is meant covers all of the output, and does so once. */
static int find_areas(struct area *areas, unsigned long long inode) {
    char name[64], line[512];
    int count = 0;

    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "re");
    if (!maps)
        fail("there is no process %d", pid);
    while (fgets(line, sizeof line, maps)) {
        unsigned long long from, to, offset, number;
        struct area area;
        int got = sscanf(line, "%llx-%llx rw-p %llx %x:%x %llu", &from, &to, &offset, &area.major,
                         &area.minor, &number);
        if (got != 6 || number != inode || count == AREAS)
            continue;
        area.from = from;
        area.to = to;
        area.offset = offset;
        areas[count++] = area;
    }
    fclose(maps);
    return count;
}

static bool same_file(const struct area *one, const struct area *other) {
    return one->major == other->major && one->minor == other->minor;
}

/* Whether those of the areas that are of one file with this one are the whole output. */
static bool covers(const struct area *areas, int count, const struct area *which, uint64_t size) {
    uint64_t reached = 0;
    for (int n = 0; n < count; n++)
        if (same_file(&areas[n], which)) {
            if (areas[n].offset != reached)
                return false;
            reached += areas[n].to - areas[n].from;
        }
    return reached == size;
}

static int copy_all(unsigned long long inode, uint64_t size) {
    struct area areas[AREAS];
    int count = find_areas(areas, inode);

    errno = 0;
    for (int which = 0; which < count; which++) {
        if (!covers(areas, count, &areas[which], size))
            continue;
        for (int n = 0; n < count; n++)
            if (same_file(&areas[n], &areas[which]))
                copy_area(&areas[n]);
        printf("%llu\n", (unsigned long long)written);
        return 0;
    }
    fail("process %d maps no file of inode %llu and %llu bytes", pid, inode,
         (unsigned long long)size);
}

int memory_main(int argc, char **argv) {
    struct stat status;
    char name[64];

    errno = 0;
    if (argc != 4 || (pid = atoi(argv[1])) <= 0 || getpagesize() != PAGE)
        fail("usage: sublet-machine memory PID INODE OUTPUT, with pages of %d bytes", PAGE);
    snprintf(name, sizeof name, "/proc/%d/pagemap", pid);
    if ((pagemap = open(name, O_RDONLY | O_CLOEXEC)) < 0)
        fail("there is no process %d", pid);
    output = open(argv[3], O_RDWR | O_CLOEXEC);
    if (output < 0 || fstat(output, &status) < 0)
        fail("%s", argv[3]);
    return copy_all(strtoull(argv[2], NULL, 10), (uint64_t)status.st_size);
}
