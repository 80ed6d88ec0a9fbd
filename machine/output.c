/* What the machine's main process writes goes to its log and to all who are attached. Nothing is
 * kept but the last piece: while one of them does not read, the process waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "machine.h"

static struct {
    char type;
    size_t length;
    char data[MESSAGE];
} piece;

bool output_busy(void) {
    for (const struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->owed)
            return true;
    return false;
}

void output_owed(struct client *client) {
    if (packet_send(client->fd, piece.type, piece.data, piece.length))
        client->owed = false;
    else if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
        client_drop(client);
}

void output_give(char type, const char *data, size_t length) {
    log_write(type == ERRORS ? "stderr" : "stdout", data, length);
    piece.type = type;
    piece.length = length;
    memcpy(piece.data, data, length);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->attached) {
            client->owed = true;
            output_owed(client);
        }
}

void output_spill(const char *data, size_t length) {
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0 && client->attached && !client->owed)
            packet_send(client->fd, OUTPUT, data, length);
}
