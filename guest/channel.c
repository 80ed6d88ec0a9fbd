/* Channels: what each client asks for. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "guest.h"

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

/* Half a request could ask for less confinement than the whole. */
static void refuse_cut(struct channel *channel) {
    struct problem problem;
    fail(&problem, 125, 0, "The machine has no room for a request that large.");
    channel_refuse(channel, &problem);
    channel->cut = false;
    channel->wants_shut = true;
}

/* A request in pieces; the empty one is the last. */
static void gather(struct channel *channel, int type, const char *data, size_t length) {
    channel->owed += (uint32_t)length;
    channel->settles = length && type != EXECUTE;
    if (length) {
        channel->cut = !text_add(&channel->request, data, length) || channel->cut;
        return;
    }
    if (channel->cut)
        refuse_cut(channel);
    else if (type == EXECUTE)
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
        machine_go(data, length);
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
            renew_child(pid);
            continue;
        }
        process_ended(&channel->process, status);
        if (channel == channels)
            machine_ends();
        channel->readable[0] = channel->process.output >= 0; /* what is left has to be looked for */
        channel->readable[1] = channel->process.errors >= 0;
    }
}
