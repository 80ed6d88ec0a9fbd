/* Channels: one for each client, and the machine's own. Each side sends no more on one than the
 * other has granted it, so a reader that is slow holds up nobody else, and what waits for him
 * here is bounded. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"

enum {
    CREDIT_MOST = 1 << 24,              /* more than any agent has to grant */
    STRAY_MOST = 1024,                  /* frames on channels that are not open, per boot */
    QUEUE_ROOM = 3 * CREDIT_AT_START,   /* packets of one byte, each behind its length */
};

struct channel channels[CHANNELS];
int quiet = -1;
static bool forced; /* nobody is waited for */
static unsigned strays;

struct client *channel_client(unsigned number) {
    return number == MACHINE || number == REPLAY ? NULL : &clients[number - 1];
}

void channel_begin(struct channel *channel) {
    free(channel->queue);
    *channel = (struct channel){.credit = CREDIT_AT_START, .granted = CREDIT_AT_START};
}

bool channel_idle(unsigned number) { return !channels[number].open; }

void channel_close(unsigned number) {
    struct channel *channel = &channels[number];
    if (!channel->open)
        return;
    channel->over = true;
    channel->from = channel->to = 0;
}

/* What is left of the machine's output, for the log and for who has room for it. */
void channels_flush(void) {
    forced = true;
    for (unsigned number = 0; number < CHANNELS; number++)
        channel_deliver(number);
    forced = false;
}

void channels_reset(void) {
    quiet = -1;
    strays = 0;
    channels_flush();
    for (unsigned number = 0; number < CHANNELS; number++) {
        struct client *client = channel_client(number);
        bool was_open = channels[number].open;
        channel_begin(&channels[number]);
        if (was_open && client && !client->attached && !machine_needs(client))
            client_drop(client);
    }
}

/* A frame on a channel that is not open: it was closed meanwhile, or in another life. To look at
 * them for ever would be work that nobody has asked for. */
static bool stray(void) { return ++strays <= STRAY_MOST; }

/* Bytes, where they are going; false: they have to wait. */
static bool deliver(unsigned number, const char *data, size_t length) {
    struct client *client = channel_client(number);

    if (number == MACHINE) {
        if (stage != RUNNING || (output_busy() && !forced))
            return false;
        if (data[0] == OUTPUT || data[0] == ERRORS)
            output_give(data[0], data + 1, length - 1);
        return true;
    }
    if (number == REPLAY) {
        machine_replayed(data[0], data + 1, length - 1);
        return true;
    }
    if (machine_answer(client, data[0], data + 1, length - 1))
        return true;
    if (client->fd < 0 || packet_send(client->fd, data[0], data + 1, length - 1))
        return true;
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)
        return false;
    client_drop(client);
    return true;
}

static bool keep(struct channel *channel, const char *data, size_t length) {
    uint16_t head = (uint16_t)length;
    if (!channel->queue && !(channel->queue = malloc(QUEUE_ROOM)))
        return false;
    if (channel->to + sizeof head + length > QUEUE_ROOM) {
        memmove(channel->queue, channel->queue + channel->from, channel->to - channel->from);
        channel->to -= channel->from;
        channel->from = 0;
    }
    if (channel->to + sizeof head + length > QUEUE_ROOM)
        return false;
    memcpy(channel->queue + channel->to, &head, sizeof head);
    memcpy(channel->queue + channel->to + sizeof head, data, length);
    channel->to += sizeof head + length;
    return true;
}

/* All that the guest had to say has been delivered: so the channel ends. */
static void conclude(unsigned number) {
    struct channel *channel = &channels[number];
    struct client *client = channel_client(number);

    if (!channel->shut_heard || channel->from < channel->to)
        return;
    channel->over = true;
    if (client && client->fd >= 0 && !client->attached && !machine_needs(client))
        client_drop(client);
    if (channel->shut_said)
        channel_begin(channel);
}

void channel_deliver(unsigned number) {
    struct channel *channel = &channels[number];

    while (channel->from < channel->to) {
        uint16_t length;
        memcpy(&length, channel->queue + channel->from, sizeof length);
        if (!deliver(number, channel->queue + channel->from + sizeof length, length))
            return;
        channel->taken += length;
        if (channel->from < channel->to) /* it has not been closed by that */
            channel->from += sizeof length + length;
    }
    free(channel->queue);
    channel->queue = NULL;
    channel->from = channel->to = 0;
    conclude(number);
}

static bool take_packet(unsigned number, const char *data, size_t length) {
    struct channel *channel = &channels[number];
    int32_t code;

    if (length == 0)
        return false;
    if (number == MACHINE && data[0] == READY)
        return machine_ready(data + 1, length - 1);
    if (number != MACHINE && !channel->open)
        return stray();
    if (length > channel->granted)
        return false;
    channel->granted -= (uint32_t)length;
    if (number == MACHINE && data[0] == EXITED && length == 1 + sizeof code) {
        memcpy(&code, data + 1, sizeof code);
        machine_exited(code);
    } else if (!channel->over && (channel->from < channel->to || !deliver(number, data, length)))
        return keep(channel, data, length);
    channel->taken += (uint32_t)length;
    return true;
}

static bool take_credit(struct channel *channel, const char *data, size_t length) {
    uint32_t more;

    if (length != sizeof more)
        return false;
    memcpy(&more, data, sizeof more);
    if (!more || more > CREDIT_MOST || channel->credit + more > CREDIT_MOST)
        return false;
    channel->credit += more;
    return true;
}

bool channel_frame(unsigned number, uint8_t kind, const char *data, size_t length) {
    if (number >= CHANNELS)
        return false;
    struct channel *channel = &channels[number];
    if (kind == FRAME_PACKET)
        return take_packet(number, data, length);
    if (kind == FRAME_CREDIT)
        return number == MACHINE || channel->open ? take_credit(channel, data, length) : stray();
    if (kind != FRAME_SHUT || number == MACHINE || length)
        return false;
    if (!channel->open || channel->shut_heard)
        return stray();
    channel->shut_heard = true;
    conclude(number);
    return true;
}
