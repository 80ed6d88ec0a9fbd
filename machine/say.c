/* What is said to the guest: one frame at a time, of each channel in turn, as far as the guest has
 * granted it. A packet of a client is taken out of his connection when there is room for it. */
#define _GNU_SOURCE
#include <string.h>

#include "machine.h"

static void say_shut(unsigned number) {
    struct channel *channel = &channels[number];
    agent_frame(number, FRAME_SHUT, 0);
    channel->shut_said = true;
    if (channel->shut_heard)
        channel_begin(channel);
}

static void say_open(unsigned number) {
    channel_begin(&channels[number]);
    channels[number].open = true;
    agent_frame(number, FRAME_OPEN, 0);
}

/* The packet of a client that waits for the guest, if the guest takes it. */
static bool forward(struct client *client) {
    if (client->fd < 0 || !client->length)
        return false;
    unsigned number = client_target(client);
    struct channel *channel = &channels[number];
    if (channel->over)
        return false; /* it has to be closed first, and opened again */
    if (number != MACHINE && !channel->open) {
        say_open(number);
        return true;
    }
    if (channel->credit < client->length) {
        if (client->gone && !client->attached)
            client_drop(client);
        return false;
    }
    ssize_t length = client_take(client, agent_room());
    if (length > 0) {
        channel->credit -= (uint32_t)length;
        machine_forwards(client, agent_room(), (size_t)length);
        if (agent_room()[0] == QUIESCE)
            quiet = (int)number;
        agent_frame(number, FRAME_PACKET, (size_t)length);
    }
    client_look(client);
    return length > 0;
}

static bool replay(void) {
    struct channel *channel = &channels[REPLAY];
    if (!machine_replays() || channel->over)
        return false;
    if (!channel->open) {
        say_open(REPLAY);
        return true;
    }
    if (channel->credit < FRAME_MOST)
        return false;
    ssize_t length = configuration_next(agent_room() + 1, MESSAGE);
    if (length < 0)
        return false;
    agent_room()[0] = CONFIGURE;
    channel->credit -= (uint32_t)length + 1;
    agent_frame(REPLAY, FRAME_PACKET, (size_t)length + 1);
    return true;
}

static bool say(unsigned number) {
    struct channel *channel = &channels[number];
    struct client *client = channel_client(number);

    if (channel->over && channel->open && !channel->shut_said) {
        say_shut(number);
        return true;
    }
    if ((channel->open || number == MACHINE) && channel->taken >= GIVE_BACK) {
        memcpy(agent_room(), &channel->taken, sizeof channel->taken);
        channel->granted += channel->taken;
        channel->taken = 0;
        agent_frame(number, FRAME_CREDIT, sizeof channel->taken);
        return true;
    }
    return number == REPLAY ? replay() : client && forward(client);
}

/* While the guest is to be quiet nothing is said to it but GO, by who has silenced it, or for
 * him when he has gone. */
static bool say_go(void) {
    unsigned number = (unsigned)quiet;
    struct client *client = channel_client(number);

    if (client->fd >= 0 && client->length && client->type == GO) {
        quiet = -1;
        return forward(client);
    }
    if (client->fd >= 0)
        return false;
    quiet = -1;
    agent_room()[0] = GO;
    agent_frame(number, FRAME_PACKET, 1);
    return true;
}

bool channels_say(void) {
    static unsigned turn;

    if (quiet >= 0)
        return say_go();
    for (unsigned n = 0; n < CHANNELS; n++) {
        unsigned number = (turn + n) % CHANNELS;
        if (say(number)) {
            turn = (number + 1) % CHANNELS;
            return true;
        }
    }
    return false;
}
