/* A machine that was restored from memory: it wakes, or it is a copy that becomes another. */
#define _GNU_SOURCE
#include "guest.h"

void machine_renew(struct channel *channel) {
    const struct text *request = &channel->request;
    struct problem problem = {0};

    machine_go();
    channels_reset(channel);
    entropy_add(text_get(request, "entropy"));
    clock_set(text_get(request, "time"));
    if (!identity_set(request, false, &problem) || !files_place(request, &problem) ||
        (text_is(request, "fork") && !network_set(request, &problem)))
        channel_refuse(channel, &problem);
    else
        channel_answer(channel, DONE, NULL, 0);
}

void machine_child(pid_t pid) { (void)pid; }
