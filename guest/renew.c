/* A machine that was restored from memory: it wakes, or it is a copy that becomes another. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

enum { HOOKS_WITHIN = 5000 };

/* For programs that keep random numbers, or names, of their own. */
#define HOOKS "for hook in /etc/sublet/resume.d/*; do [ ! -x \"$hook\" ] || \"$hook\"; done\n"

/* Two machines with one key are one to their clients. Until it has another one, sshd stands still
 * (sshd_stop) and the old ones are out of its way; who renews the machine waits for the quickest
 * kind, RSA takes seconds. sshd reads its keys again on SIGHUP, and ends where it has none that it
 * may use (sshd(8)): -t tells. It listens again when it has written its file anew. Keys that cannot
 * be made stay. */
#define KEYS \
    "(\n" \
    "files='/run/sshd.pid /var/run/sshd.pid'\n" \
    "go_on() { for file in $files; do [ ! -s $file ] || kill -CONT $(cat $file); done; }\n" \
    "serve() {\n" \
    "  for file in $files; do\n" \
    "    [ -s $file ] || continue\n" \
    "    pid=$(cat $file); rm -f $file; kill -HUP $pid; kill -CONT $pid; n=0\n" \
    "    while [ ! -s $file ] && [ $n -lt 30 ]; do sleep 0.1; n=$((n + 1)); done\n" \
    "    [ -s $file ] || echo $pid >$file\n" \
    "    break\n" \
    "  done\n" \
    "}\n" \
    "make() {\n" \
    "  key=ssh_host_${1}_key; rm -f $key.new $key.new.pub\n" \
    "  if ssh-keygen -q -t $1 -N '' -f $key.new\n" \
    "  then mv $key.new.pub $key.pub; mv $key.new $key; rm -f $key.old\n" \
    "  else mv $key.old $key; fi\n" \
    "}\n" \
    "cd /etc/ssh || exit\n" \
    "command -v ssh-keygen || { go_on; exit; }\n" \
    "set --\n" \
    "for type in ed25519 ecdsa rsa; do\n" \
    "  key=ssh_host_${type}_key; [ ! -f $key ] || mv $key $key.old\n" \
    "  [ ! -f $key.old ] || set -- $@ $type\n" \
    "done\n" \
    "[ $# != 0 ] || { go_on; exit; }\n" \
    "make $1; shift\n" \
    "[ $# != 0 ] && ! $(command -v sshd) -t || serve\n" \
    "[ $# = 0 ] || { for type; do make $type; done; serve; } &\n" \
    ")\n"

static pid_t running; /* the hooks, or what makes keys and then runs them */
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

/* Before anybody can reach it at its new address. */
static void sshd_stop(void) {
    static const char *const files[] = {"/run/sshd.pid", "/var/run/sshd.pid", NULL};
    for (const char *const *file = files; *file; file++) {
        char text[16] = "";
        int fd = open(*file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        int pid = read(fd, text, sizeof text - 1) > 0 ? atoi(text) : 0;
        if (pid > 1)
            kill(pid, SIGSTOP);
        close(fd);
    }
}

static bool become(const struct text *request, struct problem *problem) {
    bool fork = text_is(request, "fork");
    struct stat there;

    entropy_add(text_get(request, "entropy"));
    clock_set(text_get(request, "time"));
    if (fork)
        sshd_stop();
    if (!identity_set(request, problem) || !files_place(request, problem) ||
        !network_set(request, problem))
        return false;
    if (fork && stat("/etc/ssh", &there) == 0)
        running = script(KEYS HOOKS);
    else if (stat("/etc/sublet/resume.d", &there) == 0)
        running = script(HOOKS);
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
