/* Connections: who is attached to the machine, who executes something in it, who saves it. A
 * packet that is for the guest stays in the connection until the guest takes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine.h"

static const char NO_AGENT[] = "125:The machine's agent does not answer any more. "
                               "Stop the machine and start it again.";

struct client clients[CLIENTS];

static unsigned channel_of(const struct client *client) { return (unsigned)(client - clients) + 1; }

struct client *client_add(int fd) {
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd < 0 && channel_idle(channel_of(client))) {
            *client = (struct client){.fd = fd};
            return client;
        }
    return NULL;
}

void client_drop(struct client *client) {
    if (client->fd < 0)
        return;
    close(client->fd);
    *client = (struct client){.fd = -1};
    channel_close(channel_of(client));
}

bool client_say(struct client *client, char type, const void *data, size_t length) {
    if (client->fd < 0)
        return false;
    if (packet_send(client->fd, type, data, length))
        return true;
    client_drop(client);
    return false;
}

unsigned client_target(const struct client *client) {
    bool main = client->type == INPUT || client->type == CLOSE || client->type == WINDOW;
    return client->attached && main ? MACHINE : channel_of(client);
}

ssize_t client_take(struct client *client, char *data) {
    client->length = 0;
    return recv(client->fd, data, FRAME_MOST, MSG_DONTWAIT);
}

static void keep_configuration(struct client *client) {
    static char data[FRAME_MOST];
    ssize_t length = client_take(client, data);
    if (length > 0)
        configuration_keep(data + 1, (size_t)length - 1);
}

/* Nobody is there to ask: what wants an answer gets one, at the end of the request. */
static void refuse(struct client *client, char type, size_t length) {
    bool asks = type == EXECUTE || type == CONFIGURE || type == RENEW;
    if (type == QUIESCE || (asks && length == 1))
        client_say(client, FAILED, NO_AGENT, sizeof NO_AGENT - 1);
}

/* Whether the packet that is next is for the supervisor; it is taken then. */
static bool obey(struct client *client, char type, size_t length) {
    if (type == ATTACH)
        client->attached = true;
    else if (type == CONFIGURE && resumed && client == clients) {
        keep_configuration(client);
        return true;
    } else if (agent != DEAF)
        return false;
    recv(client->fd, &type, 1, MSG_DONTWAIT);
    if (type != ATTACH)
        refuse(client, type, length);
    return true;
}

void client_look(struct client *client) {
    while (client->fd >= 0) {
        char type;
        ssize_t length = recv(client->fd, &type, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (length <= 0 || length > FRAME_MOST) {
            client_drop(client);
            return;
        }
        if (!obey(client, type, (size_t)length)) {
            client->type = type;
            client->length = (size_t)length;
            return;
        }
    }
}
