/* The end of the machine: its exit code, or the reason why there is none. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "machine.h"

enum {
    NO_CODE = 255,
    LAST_READ = 4 << 20, /* most that is read of the guest after its end */
    LAST_ROOM = 8 << 20, /* and what a socket is let hold of it for a slow reader */
    SENTENCE = 1024,
};

static void settle(void) {
    int room = LAST_ROOM;
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (client->fd >= 0) {
            setsockopt(client->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
            if (client->owed)
                output_owed(client);
        }
    channels_flush();
    for (size_t total = 0, got; total < LAST_READ && (got = agent_read()); total += got)
        channels_flush();
    console_finish();
}

/* The last line that QEMU itself said. */
static size_t complaint(char *text, size_t size) {
    size_t length = words_tail(text, size - 1);
    while (length && text[length - 1] == '\n')
        length--;
    text[length] = '\0';
    char *line = strrchr(text, '\n');
    if (line)
        memmove(text, line + 1, strlen(line));
    return strlen(text);
}

static int sentence(char *text, size_t size, int status, const char *why) {
    char words[SENTENCE / 2];

    if (why)
        return snprintf(text, size, "%s", why);
    if (WIFEXITED(status) && WEXITSTATUS(status) && console_panicked())
        return snprintf(text, size, "The machine's kernel panicked.");
    size_t said = complaint(words, sizeof words);
    const char *colon = said ? ": " : ".";
    if (WIFSIGNALED(status))
        return snprintf(text, size, "QEMU was killed by signal %d%s%s", WTERMSIG(status), colon,
                        words);
    if (WEXITSTATUS(status))
        return snprintf(text, size, "QEMU ended with code %d%s%s", WEXITSTATUS(status), colon,
                        words);
    return snprintf(text, size, "The machine was powered off before it was ready.");
}

/* The sentence, and below it the last that the console has printed. */
static size_t reason(char *text, size_t size, int status, const char *why) {
    int length = sentence(text, SENTENCE, status, why);
    size_t used = (size_t)length < SENTENCE ? (size_t)length : SENTENCE - 1;
    text[used++] = '\n';
    return used + console_tail(text + used, size - used < TAIL ? size - used : TAIL);
}

_Noreturn void ending(int status, const char *why, int exited) {
    char text[SENTENCE + TAIL + 1];
    bool clean = exited >= 0 || (!why && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    bool coded = clean || why || WIFEXITED(status);
    int code = exited >= 0 ? exited : clean ? 0 : NO_CODE;

    settle();
    size_t length = reason(text, sizeof text, status, why);
    if (stage != RUNNING) {
        client_say(&clients[0], FAILED, text, length);
        exit(1);
    }
    if (!clean)
        leave_file("reason", text, length);
    if (coded)
        leave_exit_code(code);
    if (!clean && machine_resumes())
        client_say(&clients[0], FAILED, text, length);
    for (struct client *client = clients; client < clients + CLIENTS; client++)
        if (coded && client->fd >= 0 && client->attached)
            client_say(client, EXITED, &(int32_t){code}, sizeof(int32_t));
    exit(0);
}
