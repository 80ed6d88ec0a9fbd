/* Frames to and from the guest. What comes from it is hostile: a frame that breaks the protocol
 * costs all channels, and nothing is listened to then until an agent says READY again. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine.h"

enum {
    READY_MOST = 256,  /* longest text of READY that is found again */
    FAULTS = 16,       /* then the agent counts as gone */
    FRAMES_AT_ONCE = 16,
    SYNCHRONIZE = 's',
    TOKEN = 32,
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are copied as they are");

enum agent agent = SILENT;
int agent_fd = -1;

static char in[2 * (FRAME_HEADER + FRAME_MOST)], out[FRAME_HEADER + FRAME_MOST];
static size_t in_length, out_from, out_to;
static bool hunting; /* for the next READY */
static int faults;
static char token[TOKEN];
static bool token_owed;

/* Nobody listens: whatever waits for the guest is refused. */
static void refuse_all(void) {
    agent = DEAF;
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0) {
            client->length = 0;
            client_look(client);
        }
}

static void hang_up(void) {
    close(agent_fd);
    agent_fd = -1;
    in_length = 0;
    refuse_all();
}

/* The bytes up to the one that is wrong are of no use, nor is what the guest is still to read. */
static void fault(size_t upto) {
    in_length -= upto;
    memmove(in, in + upto, in_length);
    out_from = out_to = 0;
    hunting = true;
    machine_faulted();
    channels_reset();
    if (++faults > FAULTS)
        hang_up();
    else
        refuse_all();
}

/* Drop all up to what looks like READY; as much as could be its beginning stays. */
static void hunt(void) {
    size_t at = 0;
    for (; at + FRAME_HEADER < in_length; at++) {
        struct frame frame;
        memcpy(&frame, in + at, sizeof frame);
        hunting = frame.channel || frame.kind != FRAME_PACKET || frame.zero || !frame.length ||
                  frame.length > READY_MOST || in[at + FRAME_HEADER] != READY;
        if (!hunting)
            break;
    }
    in_length -= at;
    memmove(in, in + at, in_length);
}

/* Hand over each whole frame; what is left stays. */
static void take_frames(void) {
    size_t from = 0;
    struct frame frame;

    while (in_length - from >= sizeof frame) {
        memcpy(&frame, in + from, sizeof frame);
        if (frame.zero || frame.length > FRAME_MOST) {
            fault(from + 1);
            return;
        }
        if (in_length - from < sizeof frame + frame.length)
            break;
        if (!channel_frame(frame.channel, frame.kind, in + from + sizeof frame, frame.length)) {
            fault(from + 1);
            return;
        }
        from += sizeof frame + frame.length;
    }
    in_length -= from;
    memmove(in, in + from, in_length);
}

size_t agent_read(void) {
    if (agent_fd < 0)
        return 0;
    ssize_t got = recv(agent_fd, in + in_length, sizeof in - in_length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        hang_up(); /* QEMU has ended */
        return 0;
    }
    in_length += (size_t)got;
    do {
        if (hunting)
            hunt();
        if (!hunting)
            take_frames();
    } while (hunting && in_length > FRAME_HEADER);
    return (size_t)got;
}

char *agent_room(void) { return out_from == out_to ? out + FRAME_HEADER : NULL; }

bool agent_blocked(void) { return agent_fd >= 0 && out_from < out_to; }

void agent_frame(unsigned channel, uint8_t kind, size_t length) {
    struct frame frame = {.channel = (uint16_t)channel, .kind = kind, .length = (uint32_t)length};
    memcpy(out, &frame, sizeof frame);
    out_from = 0;
    out_to = FRAME_HEADER + length;
}

void agent_synchronize(const char *text, size_t length) {
    static const char KEY[] = "sync=";
    const char *found = memmem(text, length, KEY, sizeof KEY - 1);
    out_from = out_to = 0; /* what the last agent has not read is of no use to this one */
    token_owed = found && (size_t)(text + length - found) >= sizeof KEY - 1 + TOKEN;
    if (token_owed)
        memcpy(token, found + sizeof KEY - 1, TOKEN);
}

static bool next_frame(void) {
    if (agent != TALKING)
        return false;
    if (!token_owed)
        return channels_say();
    memcpy(agent_room(), token, TOKEN);
    agent_frame(MACHINE, SYNCHRONIZE, TOKEN);
    token_owed = false;
    return true;
}

static bool flush(void) {
    while (agent_fd >= 0 && out_from < out_to) {
        int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
        ssize_t written = send(agent_fd, out + out_from, out_to - out_from, flags);
        if (written < 0)
            return false; /* an end that was closed is noticed by reading */
        out_from += (size_t)written;
    }
    return agent_fd >= 0;
}

bool agent_write(void) {
    for (int n = 0; n < FRAMES_AT_ONCE; n++)
        if (!flush() || !next_frame())
            return false;
    return true;
}
