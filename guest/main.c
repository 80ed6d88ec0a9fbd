/* The guest agent: the first process of every VM. It brings the kernel to the point where it can
 * be any instance, becomes the one that the host names, runs its main process (or leaves its place
 * to the image's init), and starts further processes in it. frames.h says how it is talked to. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define VERSION "1"

enum { OWN = 2, PER_CHANNEL = 3, NOBODY = 20 };

static int signals = -1;

static void watch_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (const int *number = (int[]){SIGHUP, SIGINT, SIGTERM, SIGPIPE, 0}; *number; number++)
        signal(*number, SIG_IGN);
    signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void set_poll(struct pollfd *set, int fd, short events) {
    *set = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

static nfds_t list(struct pollfd *set, struct channel **owners) {
    nfds_t count = 0;
    for (struct channel *channel = channels; channel < channels + CHANNELS; channel++) {
        const struct process *process = &channel->process;
        bool may = !quiet && channel_may_speak(channel);
        if (!channel->open || !process->started)
            continue;
        set_poll(&set[count], process->input, process->from < process->to ? POLLOUT : 0);
        set_poll(&set[count + 1], process->output, may && !channel->readable[0] ? POLLIN : 0);
        set_poll(&set[count + 2], process->errors, may && !channel->readable[1] ? POLLIN : 0);
        owners[count / PER_CHANNEL] = channel;
        count += PER_CHANNEL;
    }
    return count;
}

static void look(const struct pollfd *set, struct channel *channel) {
    if (set[0].revents)
        channel->owed += (uint32_t)process_write(&channel->process);
    for (int n = 0; n < 2; n++)
        if (set[1 + n].revents)
            channel->readable[n] = true;
}

static int sooner(int a, int b) { return a < 0 || (b >= 0 && b < a) ? b : a; }

static void turn(void) {
    static struct pollfd set[OWN + PER_CHANNEL * CHANNELS];
    static struct channel *owners[CHANNELS];
    static bool nobody;
    struct signalfd_siginfo info;

    while (port_flush() && channels_say()) {
    }
    machine_look();
    renew_look();
    nfds_t count = list(set + OWN, owners);
    set_poll(&set[0], signals, POLLIN);
    set_poll(&set[1], nobody ? -1 : port, (short)(POLLIN | (port_idle() ? 0 : POLLOUT)));
    poll(set, OWN + count, nobody ? NOBODY : sooner(machine_wait(), renew_wait()));
    while (read(signals, &info, sizeof info) > 0) {
    }
    for (nfds_t n = 0; n < count; n += PER_CHANNEL)
        look(set + OWN + n, owners[n / PER_CHANNEL]);
    channels_reap();
    nobody = !port_read();
}

int main(int argc, char **argv) {
    const struct timespec moment = {.tv_nsec = 5000000};
    char text[160], token[FRAME_TOKEN + 1];

    if (getpid() != 1 && argc > 1 && strcmp(argv[1], "files") == 0)
        return copy_main(argc - 1, argv + 1); /* for tests */
    argv[0][0] = '@'; /* see run_init */
    watch_signals();
    boot();
    while (!port_open())
        nanosleep(&moment, NULL);
    for (struct channel *channel = channels; channel < channels + CHANNELS; channel++)
        process_clear(&channel->process);
    channels[0].open = true;
    channels[0].credit = CREDIT_AT_START;
    port_token(token);
    int length = snprintf(text, sizeof text, VERSION " %s sync=%s", release, token);
    channel_answer(&channels[0], READY, text, (size_t)length);
    for (;;)
        turn();
}
