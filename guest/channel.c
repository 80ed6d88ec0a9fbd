/* Channels: what each client has asked for, and what it still has to be told. Nothing is queued on
 * the way to the host: a process is read only when its channel may send and the port is free. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

enum { CREDIT_WORTH_SENDING = 1 << 14, LAST_PIECES = 4 << 20 };

struct channel channels[CHANNELS];
bool quiet;

static void restart(struct channel *channel) {
    process_drop(&channel->process);
    text_free(&channel->request);
    free(channel->words);
    *channel = (struct channel){.open = true, .credit = CREDIT_AT_START};
    process_clear(&channel->process);
}

void channel_answer(struct channel *channel, int type, const void *data, size_t length) {
    free(channel->words);
    channel->words = length ? malloc(length) : NULL;
    channel->length = channel->words ? length : 0;
    if (channel->length)
        memcpy(channel->words, data, length);
    channel->answer = (char)type;
}

void channel_refuse(struct channel *channel, const struct problem *problem) {
    char text[sizeof problem->text + 16];
    int length = snprintf(text, sizeof text, "%d:%s", problem->code, problem->text);
    channel_answer(channel, FAILED, text, (size_t)length);
}

static void execute(struct channel *channel) {
    struct problem problem;

    if (channel->executes || channel == channels)
        return;
    channel->executes = true;
    if (process_start(&channel->process, &channel->request, true, &problem)) {
        int32_t pid = channel->process.pid;
        channel_answer(channel, STARTED, &pid, sizeof pid);
    } else {
        channel_refuse(channel, &problem);
        channel->wants_shut = true;
    }
}

/* A request in pieces; the empty one is the last. */
static void gather(struct channel *channel, int type, const char *data, size_t length) {
    channel->owed += (uint32_t)length;
    if (length) {
        text_add(&channel->request, data, length);
        return;
    }
    if (type == EXECUTE)
        execute(channel);
    else if (type == CONFIGURE)
        machine_configure(channel);
    else
        machine_renew(channel);
    text_free(&channel->request);
}

static void send_signal(const struct channel *channel, int number) {
    if (channel->executes) {
        if (channel->process.pid > 0)
            kill(channel->process.pid, number);
    } else {
        machine_signal(number);
    }
}

static void packet(struct channel *channel, const char *data, size_t length) {
    int32_t numbers[2] = {0, 0};
    int type = data[0];

    data++;
    length--;
    channel->owed++;
    if (type == EXECUTE || type == CONFIGURE || type == RENEW) {
        gather(channel, type, data, length);
        return;
    }
    memcpy(numbers, data, length < sizeof numbers ? length : sizeof numbers);
    if (type == INPUT) {
        process_input(&channel->process, data, length);
        channel->owed += (uint32_t)process_write(&channel->process);
        return;
    }
    channel->owed += (uint32_t)length;
    if (type == CLOSE)
        process_close_input(&channel->process);
    else if (type == WINDOW && length == sizeof numbers)
        process_window(&channel->process, numbers[0], numbers[1]);
    else if (type == SIGNAL && length == sizeof numbers[0])
        send_signal(channel, numbers[0]);
    else if (type == QUIESCE)
        machine_quiesce(channel, data, length);
    else if (type == GO)
        machine_go();
}

static void shut(struct channel *channel) {
    channel->asked_shut = true;
    channel->wants_shut = true;
    channel->answer = 0;
    process_drop(&channel->process);
}

void channel_frame(unsigned number, int kind, const char *data, size_t length) {
    uint32_t more;
    struct channel *channel = &channels[number];

    if (number >= CHANNELS)
        return;
    if (kind == FRAME_OPEN && number > 0)
        restart(channel);
    else if (!channel->open)
        return;
    else if (kind == FRAME_SHUT && number > 0)
        shut(channel);
    else if (kind == FRAME_PACKET && length > 0 && !channel->asked_shut)
        packet(channel, data, length);
    else if (kind == FRAME_CREDIT && length == sizeof more) {
        memcpy(&more, data, sizeof more);
        channel->credit += more;
    }
}

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
    size_t room = channel->credit - 1 < PIECE ? channel->credit - 1 : PIECE;

    if (*fd < 0 || !channel->readable[stream] || channel->credit < 2)
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

    if (!process->ended || !process->started || (more && process->since < LAST_PIECES) ||
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

static bool say_control(struct channel *channel) {
    uint32_t owed = channel->owed;

    if (channel->answer && channel->credit > channel->length) {
        int type = channel->answer;
        channel->answer = 0;
        say(channel, type, channel->words, channel->length);
        quiet = channel->quiets;
        return true;
    }
    if (owed >= CREDIT_WORTH_SENDING && !channel->asked_shut) {
        channel->owed = 0;
        port_frame(number_of(channel), FRAME_CREDIT, &owed, sizeof owed);
        return true;
    }
    return false;
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

bool channels_say(void) {
    static unsigned last;
    for (unsigned n = 1; n <= CHANNELS && !quiet; n++) {
        struct channel *channel = &channels[(last + n) % CHANNELS];
        if (channel->open && channel_says(channel)) {
            last = number_of(channel);
            return true;
        }
    }
    return false;
}

void channels_reset(const struct channel *but) {
    for (struct channel *channel = channels + 1; channel < channels + CHANNELS; channel++) {
        if (channel == but || !channel->open)
            continue;
        restart(channel);
        channel->open = false;
    }
    channels[0].credit = CREDIT_AT_START;
    channels[0].owed = 0;
}

bool channels_silent(void) {
    for (struct channel *channel = channels + 1; channel < channels + CHANNELS; channel++)
        if (channel->open && channel->process.started)
            return false;
    return true;
}

void channels_reap(void) {
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct channel *channel = channels;
        while (channel < channels + CHANNELS && channel->process.pid != pid)
            channel++;
        if (channel == channels + CHANNELS) {
            machine_child(pid);
            continue;
        }
        process_ended(&channel->process, status);
        if (channel == channels)
            machine_ends();
        channel->readable[0] = channel->process.output >= 0; /* what is left has to be looked for */
        channel->readable[1] = channel->process.errors >= 0;
    }
}
