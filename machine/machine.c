/* The life of the machine: from QEMU's start over READY, CONFIGURE and STARTED to its end. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"

enum {
    POWER_OFF = 10000, /* milliseconds that QEMU has after EXITED */
    BOOTS_MOST = 30,   /* that many in a minute are no boots */
};

enum stage stage;
bool resumed;

static pid_t qemu;
static long long ready_by, ended_by; /* 0: never */
static int exited = -1;
static const char *why; /* it was killed */
static bool replaying;
static bool answered; /* the guest, on the first connection */

long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void note(const char *text) {
    char line[256];
    int length = snprintf(line, sizeof line, "%s\n", text);
    log_write("stderr", line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

static void end_for(const char *reason) {
    if (!why)
        why = reason;
    kill(qemu, SIGKILL);
}

static void say_started(void) {
    int32_t pids[] = {qemu, getpid()};
    stage = RUNNING;
    if (!client_say(&clients[0], STARTED, pids, sizeof pids)) {
        stage = CONFIGURING; /* taken back */
        return;
    }
    channel_deliver(MACHINE);
}

void machine_begin(const struct plan *plan) {
    qemu = plan->qemu;
    if (plan->deadline)
        ready_by = milliseconds() + 1000LL * plan->deadline;
    if (resumed) {
        agent = TALKING;
        say_started();
    } else if (plan->ready) {
        machine_ready("", 0);
    }
}

static void replay_configuration(void) {
    replaying = configuration_rewind();
    if (!replaying)
        end_for("The machine was restarted inside, and cannot be set up again after a resume. "
                "Start it again.");
}

static bool boots_too_often(void) {
    static long long since;
    static int boots;
    if (!since || milliseconds() - since > 60000) {
        since = milliseconds();
        boots = 0;
    }
    return ++boots > BOOTS_MOST;
}

bool machine_ready(const char *text, size_t length) {
    if (boots_too_often())
        return false;
    channels_reset();
    agent = TALKING;
    agent_synchronize(text, length);
    if (stage == BOOTING) {
        stage = CONFIGURING;
        client_say(&clients[0], READY, text, length);
    } else if (stage == RUNNING) {
        note("The machine was restarted inside.");
        replay_configuration();
    } else {
        end_for("The machine was restarted inside while it was being set up.");
    }
    return true;
}

void machine_exited(int code) {
    if (exited >= 0)
        return;
    exited = code < 0 || code > 255 ? 255 : code;
    ended_by = milliseconds() + POWER_OFF;
}

void machine_faulted(void) {
    note("The machine's agent broke the protocol; what it worked on has been dropped.");
    if (stage == CONFIGURING)
        end_for("The machine's agent broke the protocol while the machine was being set up.");
}

bool machine_needs(const struct client *client) { return client == clients && stage != RUNNING; }

bool machine_resumes(void) { return resumed && !answered; }

static _Noreturn void refused(const char *text, size_t length) {
    client_say(&clients[0], FAILED, text, length);
    kill(qemu, SIGKILL);
    waitpid(qemu, NULL, 0);
    exit(1);
}

bool machine_answer(struct client *client, char type, const char *data, size_t length) {
    if (client == clients)
        answered = true;
    if (!machine_needs(client) || (type != STARTED && type != FAILED))
        return false;
    if (type == FAILED)
        refused(data, length);
    say_started();
    return true;
}

void machine_forwards(const struct client *client, const char *packet, size_t length) {
    static const char TOO_MUCH[] = "125:The machine's settings and files are too large; "
                                   "16 MiB are the most.";
    if (machine_needs(client) && packet[0] == CONFIGURE &&
        !configuration_keep(packet + 1, length - 1))
        refused(TOO_MUCH, sizeof TOO_MUCH - 1);
}

bool machine_replays(void) { return replaying; }

void machine_replayed(char type, const char *text, size_t length) {
    static char reason[512];

    if (type != STARTED && type != FAILED)
        return;
    replaying = false;
    channel_close(REPLAY);
    if (type == STARTED)
        return;
    snprintf(reason, sizeof reason, "The machine was restarted inside, and then: %.*s",
             (int)(length < 400 ? length : 400), text);
    end_for(reason);
}

int machine_wait(void) {
    long long by = stage == BOOTING ? ready_by : ended_by;
    if (!by)
        return -1;
    long long left = by - milliseconds();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

void machine_look(void) {
    int status;

    if (waitpid(qemu, &status, WNOHANG) == qemu)
        ending(status, why, exited);
    if (stage != RUNNING && clients[0].fd < 0)
        end_for("Whoever started the machine has gone.");
    if (machine_wait() != 0)
        return;
    if (stage == BOOTING)
        end_for("The machine's agent was not ready in time.");
    else
        end_for("The machine did not power off in time.");
    ready_by = ended_by = 0;
}
