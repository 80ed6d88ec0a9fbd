/* The container's standard streams: what it writes goes to its log and to all who are attached.
 * Nothing is kept: while one of them does not read, the container waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor.h"

enum {
    LAST_PIECES = 4 << 20, /* most that is read of a stream after the end */
    LAST_ROOM = 8 << 20,   /* and what a socket is let hold of them for a slow reader */
};

struct stream streams[STREAMS] = {
    {.fd = -1, .type = OUTPUT, .name = "stdout"},
    {.fd = -1, .type = ERRORS, .name = "stderr"},
};

static int input = -1;
static bool terminal, interactive;
static char waiting[MESSAGE]; /* input that the container has not read yet */
static size_t waiting_from, waiting_to;

static void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static int pipe_for(int *ours, int *theirs, int our_end) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    *ours = ends[our_end];
    *theirs = ends[1 - our_end];
    set_nonblocking(*ours);
    return 0;
}

int streams_open(int child[3], bool with_input, bool with_terminal) {
    child[0] = child[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
    terminal = with_terminal;
    interactive = with_input;
    if (child[0] < 0 || pipe_for(&streams[1].fd, &child[2], 0) < 0)
        return -1;
    if (terminal)
        return 0;
    if (pipe_for(&streams[0].fd, &child[1], 0) < 0)
        return -1;
    return with_input ? pipe_for(&input, &child[0], 1) : 0;
}

/* The other end stays open here as well: a container may close all of its terminal and open
 * /dev/console later, as init systems do, and until then a read would fail (EIO). */
void streams_terminal(int master) {
    ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    set_nonblocking(master);
    streams[0].fd = master;
    input = interactive ? master : -1;
}

bool stream_delivered(const struct stream *stream) {
    unsigned bit = 1u << (stream - streams);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->owed & bit)
            return false;
    return true;
}

static bool stream_read(struct stream *stream) {
    ssize_t got = read(stream->fd, stream->data, sizeof stream->data);
    if (got > 0) {
        stream->length = (size_t)got;
        log_write(stream->name, stream->data, stream->length);
        return true;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        if (stream->fd == input)
            input = -1;
        close(stream->fd);
        stream->fd = -1;
    }
    return false;
}

bool stream_pump(struct stream *stream) {
    if (stream->fd < 0 || !stream_read(stream))
        return false;
    unsigned bit = 1u << (stream - streams);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->attached)
            client_give(client, bit);
    return true;
}

void streams_finish(void) {
    int room = LAST_ROOM;
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->attached) {
            setsockopt(client->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
            client_give(client, client->owed);
        }
    for (struct stream *stream = streams; stream < streams + STREAMS; stream++)
        for (size_t total = 0; total < LAST_PIECES && stream_pump(stream);)
            total += stream->length;
}

size_t streams_complaint(char *text, size_t size) {
    ssize_t got = read(streams[1].fd, text, size);
    if (got <= 0 && terminal) /* the process had it already */
        got = read(streams[0].fd, text, size);
    return got > 0 ? (size_t)got : 0;
}

void streams_forget(void) {
    while (read(streams[1].fd, streams[1].data, sizeof streams[1].data) > 0) {
    }
}

int input_fd(void) { return waiting_from < waiting_to ? input : -1; }

void input_write(void) {
    while (input >= 0 && waiting_from < waiting_to) {
        ssize_t written = write(input, waiting + waiting_from, waiting_to - waiting_from);
        if (written < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (written < 0) { /* nobody reads it any more */
            if (!terminal)
                input_close();
            break;
        }
        waiting_from += (size_t)written;
    }
    waiting_from = waiting_to = 0;
}

void input_take(const char *data, size_t length) {
    if (length > sizeof waiting || waiting_from < waiting_to)
        return; /* the caller takes nothing while input waits */
    memcpy(waiting, data, length);
    waiting_from = 0;
    waiting_to = length;
    input_write();
}

void input_close(void) {
    if (input >= 0 && !terminal) {
        close(input);
        input = -1;
    }
}

void window_set(int rows, int columns) {
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    if (terminal && streams[0].fd >= 0)
        ioctl(streams[0].fd, TIOCSWINSZ, &size);
}
