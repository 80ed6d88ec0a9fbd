/* Frames to and from the host, over the virtio-serial port `sublet.agent`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "guest.h"

#define PORT_NAME "sublet.agent\n"

int port = -1;
static char out[FRAME_HEADER + FRAME_MOST], in[FRAME_HEADER + FRAME_MOST];
static size_t out_from, out_to, in_length;
static bool in_step; /* with this host: its first frame has come */
static struct {
    struct frame frame;
    char text[FRAME_TOKEN];
} sync_frame = {.frame = {.kind = FRAME_SYNC, .length = FRAME_TOKEN}};

void port_token(char token[FRAME_TOKEN + 1]) {
    unsigned char bytes[FRAME_TOKEN / 2] = {0};
    (void)!getrandom(bytes, sizeof bytes, GRND_INSECURE); /* a name, not a secret */
    for (size_t n = 0; n < sizeof bytes; n++)
        snprintf(token + 2 * n, 3, "%02x", bytes[n]);
    memcpy(sync_frame.text, token, FRAME_TOKEN);
    in_step = false;
}

bool port_open(void) {
    DIR *all = opendir("/sys/class/virtio-ports");
    const struct dirent *each;

    while (all && port < 0 && (each = readdir(all))) {
        char path[300], name[64];
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", each->d_name);
        read_file(path, name, sizeof name);
        if (strcmp(name, PORT_NAME) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", each->d_name);
        port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    if (all)
        closedir(all);
    return port >= 0;
}

bool port_idle(void) { return out_from == out_to; }

char *port_room(void) { return out + FRAME_HEADER + 1; }

static void send_frame(unsigned number, int kind, size_t length) {
    struct frame frame = {.channel = (uint16_t)number, .kind = (uint8_t)kind};
    frame.length = (uint32_t)length;
    memcpy(out, &frame, sizeof frame);
    out_from = 0;
    out_to = FRAME_HEADER + length;
    port_flush();
}

void port_packet(unsigned number, int type, size_t length) {
    out[FRAME_HEADER] = (char)type;
    send_frame(number, FRAME_PACKET, length + 1);
}

void port_frame(unsigned number, int kind, const void *data, size_t length) {
    if (length)
        memcpy(out + FRAME_HEADER, data, length);
    send_frame(number, kind, length);
}

bool port_flush(void) {
    while (out_from < out_to) {
        ssize_t written = write(port, out + out_from, out_to - out_from);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        out_from += (size_t)written;
    }
    return true;
}

/* Throw away what was meant for another. */
static void find_step(void) {
    const char *found = memmem(in, in_length, &sync_frame, sizeof sync_frame);
    size_t done;

    if (found) {
        in_step = true;
        done = (size_t)(found - in) + sizeof sync_frame;
    } else {
        done = in_length < sizeof sync_frame ? 0 : in_length - sizeof sync_frame + 1;
    }
    in_length -= done;
    memmove(in, in + done, in_length);
}

/* Hand over each whole frame, and keep what is left. A frame that cannot be is the end of all
 * order: what came with it is thrown away. */
static void take_frames(void) {
    size_t from = 0;
    struct frame frame;

    while (in_length - from >= sizeof frame) {
        memcpy(&frame, in + from, sizeof frame);
        if (frame.length > FRAME_MOST) {
            in_length = 0;
            return;
        }
        if (in_length - from < sizeof frame + frame.length)
            break;
        channel_frame(frame.channel, frame.kind, in + from + sizeof frame, frame.length);
        from += sizeof frame + frame.length;
    }
    in_length -= from;
    memmove(in, in + from, in_length);
}

bool port_read(void) {
    for (;;) {
        ssize_t got = read(port, in + in_length, sizeof in - in_length);
        if (got < 0)
            return true;
        if (got == 0) { /* nobody has the other end; half a frame is of no use to the next */
            in_length = out_from = out_to = 0;
            return false;
        }
        in_length += (size_t)got;
        if (!in_step)
            find_step();
        if (in_step)
            take_frames();
    }
}
