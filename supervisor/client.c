/* Connections: who is attached to the container, and who executes something in it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "supervisor.h"

enum { ARGUMENTS = 64, PASSED = 4 };

struct client clients[CLIENTS];

struct client *client_add(int fd) {
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd < 0 && client->task.state == NONE) {
            *client = (struct client){.fd = fd, .task = {.gate_fd = -1}};
            return client;
        }
    return NULL;
}

void client_drop(struct client *client) {
    if (client->task.state != NONE)
        task_abandon(&client->task);
    close(client->fd);
    client->fd = -1;
    client->attached = false;
    client->owed = 0;
}

bool client_say(struct client *client, char type, const void *data, size_t length) {
    if (client->fd < 0)
        return false;
    if (packet_send(client->fd, type, data, length))
        return true;
    client_drop(client);
    return false;
}

bool client_say_number(struct client *client, char type, int32_t number) {
    return client_say(client, type, &number, sizeof number);
}

void client_give(struct client *client, unsigned bits) {
    for (unsigned n = 0; n < STREAMS; n++) {
        struct stream *stream = &streams[n];
        if (!(bits & 1u << n))
            continue;
        client->owed &= ~(1u << n);
        if (packet_send(client->fd, stream->type, stream->data, stream->length))
            continue;
        if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
            client_drop(client);
            return;
        }
        client->owed |= 1u << n;
    }
}

static void execute(struct client *client, char *data, size_t length, const int *fds, int count) {
    char *argv[ARGUMENTS + 1], *pid_file = data;
    int words = 0;

    if (count != PASSED || client->attached || client->task.state != NONE || length == 0 ||
        data[length - 1] != '\0') {
        client_drop(client);
        return;
    }
    for (char *word = data + strlen(data) + 1; word < data + length; word += strlen(word) + 1) {
        if (words == ARGUMENTS) {
            client_drop(client);
            return;
        }
        argv[words++] = word;
    }
    argv[words] = NULL;
    if (!words || task_start(&client->task, pid_file, NULL, argv, fds, count) < 0)
        client_say(client, FAILED, NULL, 0);
}

static void obey(struct client *client, char *data, size_t length, const int *fds, int count) {
    int32_t numbers[2];
    char type = data[0];

    data++;
    length--;
    memcpy(numbers, data, length < sizeof numbers ? length : sizeof numbers);
    if (type == ATTACH)
        client->attached = true;
    else if (type == EXECUTE)
        execute(client, data, length, fds, count);
    else if (type == INPUT && client->attached)
        input_take(data, length);
    else if (type == CLOSE && client->attached)
        input_close();
    else if (type == WINDOW && client->attached && length == sizeof numbers)
        window_set(numbers[0], numbers[1]);
    else if (type == SIGNAL && length == sizeof numbers[0])
        task_signal(&client->task, numbers[0]);
}

void client_read(struct client *client) {
    static char data[MESSAGE + 1];
    union {
        char room[CMSG_SPACE(sizeof(int) * PASSED)];
        struct cmsghdr align;
    } control;
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int fds[PASSED], count = 0;

    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    ssize_t length = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); length >= 0 && head;
         head = CMSG_NXTHDR(&message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            count = count > PASSED ? PASSED : count;
            memcpy(fds, CMSG_DATA(head), sizeof(int) * (size_t)count);
        }
    if (length > 0 && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        obey(client, data, (size_t)length, fds, count);
    else
        client_drop(client);
    for (int n = 0; n < count; n++)
        close(fds[n]);
}
