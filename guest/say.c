/* What channels have to say. Nothing is queued on the way to the host: a process is read only when
 * its channel may send and the port is free. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

enum {
    CREDIT_WORTH_SENDING = 1 << 14,
    LAST_PIECES = 4 << 20, /* most that is read of a stream after the end of its process */
    FOR_THE_END = 16,      /* credit that output leaves, so that the end can be told in any case */
};

bool channel_may_speak(const struct channel *channel) { return channel->credit > FOR_THE_END; }

static unsigned number_of(const struct channel *channel) { return (unsigned)(channel - channels); }

static void say(struct channel *channel, int type, const void *data, size_t length) {
    if (length)
        memcpy(port_room(), data, length);
    channel->credit -= (uint32_t)length + 1;
    port_packet(number_of(channel), type, length);
}

/* Read a piece of a stream straight into the port. */
static bool say_piece(struct channel *channel, int stream) {
    struct process *process = &channel->process;
    int *fd = stream ? &process->errors : &process->output;
    size_t room = channel->credit - FOR_THE_END < PIECE ? channel->credit - FOR_THE_END : PIECE;

    if (*fd < 0 || !channel->readable[stream] || !channel_may_speak(channel))
        return false;
    ssize_t got = read(*fd, port_room(), room);
    if (got < 0 && errno == EINTR)
        return false;
    if (got <= 0)
        channel->readable[stream] = false;
    if (got > 0) {
        process->since += process->ended ? (size_t)got : 0;
        channel->credit -= (uint32_t)got + 1;
        port_packet(number_of(channel), stream ? ERRORS : OUTPUT, (size_t)got);
        return true;
    }
    if (got == 0 || errno != EAGAIN) {
        if (process->terminal)
            process->input = -1;
        close(*fd);
        *fd = -1;
    }
    return false;
}

/* The end of a process is told after all that it has written. Somebody whom it left behind may
 * write for ever: that is not waited for. */
static bool say_end(struct channel *channel) {
    struct process *process = &channel->process;
    bool more = channel->readable[0] || channel->readable[1];

    bool enough = process->since >= LAST_PIECES || machine_hurries();

    if (!process->ended || !process->started || (more && !enough) ||
        channel->credit < 1 + sizeof(int32_t) || (channel == channels && !machine_may_end()))
        return false;
    int32_t code = process->code;
    process_drop(process);
    say(channel, EXITED, &code, sizeof code);
    if (channel == channels)
        machine_over();
    else
        channel->wants_shut = true;
    return true;
}

static bool say_credit(struct channel *channel) {
    uint32_t owed = channel->owed;

    if (owed < CREDIT_WORTH_SENDING || channel->asked_shut)
        return false;
    channel->owed = 0;
    port_frame(number_of(channel), FRAME_CREDIT, &owed, sizeof owed);
    return true;
}

static bool say_control(struct channel *channel) {
    if (channel->answer && channel->credit > channel->length) {
        int type = channel->answer;
        channel->answer = 0;
        say(channel, type, channel->words, channel->length);
        quiet = channel->quiets;
        return true;
    }
    return say_credit(channel);
}

static bool say_shut(struct channel *channel) {
    if (!channel->wants_shut || channel->said_shut || channel->answer)
        return false;
    channel->said_shut = true;
    port_frame(number_of(channel), FRAME_SHUT, NULL, 0);
    return true;
}

static bool channel_says(struct channel *channel) {
    if (say_control(channel))
        return true;
    if (!channel->answer && channel->process.started &&
        (say_piece(channel, 0) || say_piece(channel, 1) || say_end(channel)))
        return true;
    bool said = say_shut(channel);
    if (channel->said_shut && channel->asked_shut) {
        text_free(&channel->request);
        free(channel->words);
        *channel = (struct channel){0};
        process_clear(&channel->process);
    }
    return said;
}

/* The whole of a request that ends the silence may be more than the credit that there was. */
static bool say_credit_for_settings(void) {
    for (struct channel *channel = channels; channel < channels + CHANNELS; channel++)
        if (channel->open && channel->settles && say_credit(channel))
            return true;
    return false;
}

bool channels_say(void) {
    static unsigned last;

    if (quiet)
        return say_credit_for_settings();
    for (unsigned n = 1; n <= CHANNELS; n++) {
        struct channel *channel = &channels[(last + n) % CHANNELS];
        if (channel->open && channel_says(channel)) {
            last = number_of(channel);
            return true;
        }
    }
    return false;
}
