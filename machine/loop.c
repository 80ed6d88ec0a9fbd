/* What there is to wait for, and who looks at it. */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine.h"

enum { BEFORE_CLIENTS = 5 };

int signals = -1, listener = -1;

static short client_events(const struct client *client) {
    const struct channel *channel = &channels[client - clients + 1];
    bool waits = client->owed || channel->from < channel->to;
    return (short)((client->length ? 0 : POLLIN) | (waits ? POLLOUT : 0));
}

static void look_at_client(struct client *client, short events) {
    if (client->fd >= 0 && events & POLLOUT && client->owed)
        output_owed(client);
    if (client->fd >= 0 && events & POLLOUT)
        channel_deliver((unsigned)(client - clients) + 1);
    if (client->fd < 0 || !(events & (POLLIN | POLLHUP | POLLERR)))
        return;
    if (client->length)
        client->gone = true; /* it is looked at no more before that has been forwarded */
    else
        client_look(client);
}

static void accept_client(void) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && !client_add(fd))
        close(fd);
}

static int fill(struct pollfd *set) {
    short writing = agent_blocked() ? POLLOUT : 0;
    set[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    set[1] = (struct pollfd){.fd = stage == RUNNING ? listener : -1, .events = POLLIN};
    set[2] = (struct pollfd){.fd = agent_fd, .events = (short)(POLLIN | writing)};
    set[3] = (struct pollfd){.fd = console_fd, .events = POLLIN};
    set[4] = (struct pollfd){.fd = words_fd, .events = POLLIN};
    for (int n = 0; n < CLIENTS; n++)
        set[BEFORE_CLIENTS + n] =
            (struct pollfd){.fd = clients[n].gone ? -1 : clients[n].fd,
                            .events = client_events(&clients[n])};
    return BEFORE_CLIENTS + CLIENTS;
}

static int sooner(int a, int b) { return a < 0 || (b >= 0 && b < a) ? b : a; }

void turn(void) {
    static bool more; /* to write, without waiting for anything */
    struct pollfd set[BEFORE_CLIENTS + CLIENTS];
    struct signalfd_siginfo info;

    if (poll(set, (nfds_t)fill(set), more ? 0 : sooner(machine_wait(), console_wait())) < 0)
        return;
    while (read(signals, &info, sizeof info) > 0) {
    }
    for (int n = 0; n < CLIENTS; n++)
        if (set[BEFORE_CLIENTS + n].revents)
            look_at_client(&clients[n], set[BEFORE_CLIENTS + n].revents);
    if (set[2].revents & (POLLIN | POLLHUP | POLLERR))
        agent_read();
    if (set[3].revents)
        console_read();
    if (set[4].revents)
        words_read();
    if (set[1].revents)
        accept_client();
    if (!output_busy())
        channel_deliver(MACHINE);
    more = agent_write();
    console_look();
    machine_look();
}
