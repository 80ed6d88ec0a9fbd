/* What the serial console prints: the last of it is kept in the file `console`, and shown in
 * errors. What QEMU itself has to say is kept for errors alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"

enum {
    RECENT = 8192,
    PIECE = 16384,
    FILE_KEEPS = 64 << 10,
    FILE_MOST = 2 * FILE_KEEPS,
    LAST_READS = 16,
    LINE_WITHIN = 100, /* milliseconds until the log gets a line that does not end */
};

struct recent { /* a ring */
    char bytes[RECENT];
    size_t written;
};

int console_fd = -1, words_fd = -1;
bool console_is_output;
static struct recent console, words;
static char piece[PIECE];
static char line[PIECE]; /* for the log: it comes byte by byte */
static size_t line_length;
static long long line_since;

static void remember(struct recent *recent, const char *data, size_t length) {
    for (size_t n = 0; n < length; n++)
        recent->bytes[recent->written++ % RECENT] = data[n];
}

/* A piece of what is there; 0: nothing now. A descriptor that has ended is closed. */
static size_t receive(int *fd) {
    ssize_t got = *fd < 0 ? -1 : read(*fd, piece, sizeof piece);
    if (got > 0)
        return (size_t)got;
    if (*fd >= 0 && (got == 0 || (errno != EAGAIN && errno != EINTR))) {
        close(*fd);
        *fd = -1;
    }
    return 0;
}

/* The file without its older half. What cannot be written is lost, as of a log. */
static void shorten(int *fd, off_t size) {
    static char kept[FILE_KEEPS];
    ssize_t got = pread(*fd, kept, sizeof kept, size - FILE_KEEPS);
    if (got > 0)
        leave_file("console", kept, (size_t)got);
    close(*fd);
    *fd = -1;
}

static void keep(const char *data, size_t length) {
    static int file = -1;
    struct stat now;

    if (file < 0)
        file = open("console", O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0 || write(file, data, length) < 0)
        return;
    if (fstat(file, &now) == 0 && now.st_size >= FILE_MOST)
        shorten(&file, now.st_size);
}

static void log_line(void) {
    log_write("stdout", line, line_length);
    line_length = 0;
}

static void gather(const char *data, size_t length) {
    if (line_length + length > sizeof line)
        log_line();
    if (!line_length)
        line_since = milliseconds();
    memcpy(line + line_length, data, length);
    line_length += length;
    if (line[line_length - 1] == '\n')
        log_line();
}

int console_wait(void) {
    if (!line_length)
        return -1;
    long long left = line_since + LINE_WITHIN - milliseconds();
    return left > 0 ? (int)left : 0;
}

void console_look(void) {
    if (console_wait() == 0)
        log_line();
}

void console_finish(void) {
    for (int n = 0; n < LAST_READS; n++) {
        console_read();
        words_read();
    }
    if (line_length)
        log_line();
}

void console_read(void) {
    size_t length = receive(&console_fd);
    if (!length)
        return;
    remember(&console, piece, length);
    keep(piece, length);
    if (!console_is_output)
        return;
    output_spill(piece, length);
    gather(piece, length);
}

void words_read(void) { remember(&words, piece, receive(&words_fd)); }

/* Whether the byte belongs to an escape sequence of a terminal (ECMA-48, CSI and two bytes). */
static bool escaped(char byte, int *state) {
    if (byte == '\033')
        *state = 1;
    else if (*state == 1)
        *state = byte == '[' ? 2 : 3;
    else if (*state == 2)
        *state = byte >= '@' && byte <= '~' ? 3 : 2;
    else
        *state = 0;
    return *state != 0;
}

static size_t tail(const struct recent *recent, char *text, size_t size) {
    char printable[RECENT];
    size_t used = 0, from = recent->written > RECENT ? recent->written - RECENT : 0;
    int state = 0;

    for (size_t n = from; n < recent->written; n++) {
        char byte = recent->bytes[n % RECENT];
        if (!escaped(byte, &state) && ((byte >= ' ' && byte <= '~') || byte == '\n'))
            printable[used++] = byte;
    }
    size_t length = used < size ? used : size;
    memcpy(text, printable + used - length, length);
    return length;
}

size_t console_tail(char *text, size_t size) { return tail(&console, text, size); }

size_t words_tail(char *text, size_t size) { return tail(&words, text, size); }

bool console_panicked(void) {
    char text[RECENT];
    return memmem(text, console_tail(text, sizeof text), "Kernel panic", 12) != NULL;
}
