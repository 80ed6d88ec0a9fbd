/* A machine that was restored from memory: it wakes, or it is a copy that becomes another. */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

enum { HOOKS_WITHIN = 5000 };

/* For programs that keep random numbers, or names, of their own. */
static const char hooks[] =
    "for hook in /etc/sublet/resume.d/*; do [ ! -x \"$hook\" ] || \"$hook\"; done";

/* Two machines with one key are one to their clients. The quickest kinds come first: RSA takes
 * seconds. sshd reads its keys again on SIGHUP (sshd(8)). */
static const char keys[] =
    "cd /etc/ssh && for type in ed25519 ecdsa rsa; do\n"
    "  key=ssh_host_${type}_key; [ -f $key ] || continue\n"
    "  rm -f $key.new $key.new.pub\n"
    "  ssh-keygen -q -t $type -N '' -f $key.new && mv $key.new.pub $key.pub && mv $key.new $key\n"
    "  for file in /run/sshd.pid /var/run/sshd.pid; do\n"
    "    [ ! -s $file ] || { kill -HUP $(cat $file); break; }\n"
    "  done\n"
    "done\n";

static pid_t running; /* the hooks */
static long long since;

static pid_t script(const char *text) {
    return tool_start((char *const[]){"busybox", "sh", "-c", (char *)text, NULL});
}

static void done(void) {
    running = 0;
    for (struct channel *channel = channels; channel < channels + CHANNELS; channel++)
        if (channel->open && channel->waits) {
            channel->waits = false;
            channel_answer(channel, DONE, NULL, 0);
        }
}

static bool become(const struct text *request, struct problem *problem) {
    bool fork = text_is(request, "fork");
    struct stat there;

    entropy_add(text_get(request, "entropy"));
    clock_set(text_get(request, "time"));
    if (!identity_set(request, problem) || !files_place(request, problem) ||
        !network_set(request, problem))
        return false;
    if (fork && stat("/etc/ssh", &there) == 0)
        script(keys);
    if (stat("/etc/sublet/resume.d", &there) == 0)
        running = script(hooks);
    return true;
}

void machine_renew(struct channel *channel) {
    struct problem problem;

    machine_go("", 0);
    channels_reset(channel);
    if (!become(&channel->request, &problem)) {
        channel_refuse(channel, &problem);
        return;
    }
    channel->waits = true;
    since = milliseconds();
    if (running <= 0)
        done();
}

void renew_child(pid_t pid) {
    if (running > 0 && pid == running)
        done();
}

int renew_wait(void) { return running > 0 ? HOOKS_WITHIN : -1; }

void renew_look(void) {
    if (running > 0 && milliseconds() - since > HOOKS_WITHIN)
        done(); /* they go on, but nobody waits for them any more */
}
