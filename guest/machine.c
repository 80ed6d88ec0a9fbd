/* What concerns the machine as a whole: becoming an instance, orderly ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

enum { OTHERS_END_WITHIN = 1000, HURRY_AFTER = 10000, WORDS_WITHIN = 20000, MOMENT = 20 };

enum mode mode = WAITING;
static long long ending; /* since when the main process has ended, in ms; 0: it runs */
static bool over;

/* `NAME VALUE`, as sysctl(8) writes the name. */
static bool set_sysctls(const struct text *request, struct problem *problem) {
    const char *value;

    for (size_t at = 0; (value = text_next(request, "sysctl", &at));) {
        char path[256] = "/proc/sys/";
        size_t length = strlen(path), width = strcspn(value, " ");
        if (length + width >= sizeof path || !value[width])
            return fail(problem, 125, 0, "A sysctl was not described as it should be.");
        for (size_t n = 0; n < width; n++)
            path[length + n] = value[n] == '.' ? '/' : value[n];
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        const char *text = value + width + 1;
        if (fd < 0 || write(fd, text, strlen(text)) < 0) {
            fail(problem, 125, errno, "The sysctl %.*s cannot be set", (int)width, value);
            close(fd);
            return false;
        }
        close(fd);
    }
    return true;
}

static bool become_instance(const struct text *request, struct problem *problem) {
    entropy_add(text_get(request, "entropy"));
    clock_set(text_get(request, "time"));
    if (!root_enter(request, problem) || !mounts_make(request, problem) ||
        !identity_set(request, problem) || !files_place(request, problem) ||
        !network_set(request, problem) || !set_sysctls(request, problem))
        return false;
    const char *directory = text_get(request, "cwd");
    if (directory && directory[0] == '/')
        make_directories(directory); /* as runtimes of containers do */
    if (text_is(request, "readonly") &&
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
        return fail(problem, 125, errno, "The root cannot be made read-only");
    return true;
}

/* The first process becomes the image's init; this goes on as its child. systemd spares processes
 * whose command line begins with `@` when it ends all others (its ROOT_STORAGE_DAEMONS page). */
static bool run_init(const struct text *request, struct problem *problem) {
    struct user root = {.home = "/root"};
    int report[2];
    char **argv = text_all(request, "arg");

    if (!argv || !argv[0] || pipe2(report, O_CLOEXEC) < 0)
        return fail(problem, 125, 0, "There is no init to run.");
    pid_t child = fork();
    if (child < 0)
        return fail(problem, 125, errno, "The machine cannot start a process");
    if (child > 0) {
        process_become(request, &root, argv, report[1]);
        for (;;) /* when the first process ends, the kernel panics */
            pause();
    }
    close(report[1]);
    bool refused = process_refused(report[0], argv[0], problem);
    close(report[0]);
    free(argv);
    setsid();
    prctl(PR_SET_NAME, "sublet-guest");
    set_kernel("/proc/self/oom_score_adj", "-1000");
    return !refused;
}

void machine_configure(struct channel *channel) {
    const struct text *request = &channel->request;
    const char *kind = text_get(request, "mode");
    bool init = kind && strcmp(kind, "init") == 0;
    struct problem problem;

    if (mode != WAITING) {
        fail(&problem, 125, 0, "The machine is an instance already.");
        channel_refuse(channel, &problem);
        return;
    }
    machine_go("", 0);
    mode = init ? INIT : APPLICATION;
    if (!become_instance(request, &problem) ||
        !(init ? run_init(request, &problem)
               : process_start(&channels[0].process, request, text_is(request, "stdin"),
                               &problem))) {
        channel_refuse(channel, &problem);
        return;
    }
    int32_t pid = init ? 1 : channels[0].process.pid;
    channel_answer(channel, STARTED, &pid, sizeof pid);
}

void machine_quiesce(struct channel *channel, const char *data, size_t length) {
    struct text request = {0};

    if (channel->quiets)
        return;
    if (text_add(&request, data, length) && text_is(&request, "fsfreeze"))
        disks_freeze(true);
    text_free(&request);
    channel->quiets = true;
    channel_answer(channel, DONE, NULL, 0);
}

void machine_go(const char *data, size_t length) {
    struct text request = {0};

    if (text_add(&request, data, length))
        clock_set(text_get(&request, "time"));
    text_free(&request);
    for (struct channel *channel = channels; channel < channels + CHANNELS; channel++)
        channel->quiets = false;
    quiet = false;
    disks_freeze(false);
}

static bool is_systemd(void) {
    struct stat there;
    return stat("/run/systemd/system", &there) == 0;
}

/* An orderly end of the init system. */
static void power_off_init(void) {
    if (is_systemd()) {
        kill(1, SIGRTMIN + 4); /* systemd(1) */
        return;
    }
    if (fork() == 0) {
        for (const char *const *path =
                 (const char *const[]){"/sbin/poweroff", "/usr/sbin/poweroff", "/bin/poweroff",
                                       "/usr/bin/poweroff", NULL};
             *path; path++)
            execl(*path, "poweroff", NULL);
        kill(1, SIGUSR2); /* busybox's init */
        _exit(127);
    }
}

void machine_signal(int number) {
    if (mode == APPLICATION && channels[0].process.pid > 0)
        kill(channels[0].process.pid, number);
    if (mode != INIT)
        return;
    if (number == SIGTERM || number == SIGRTMIN + 3)
        power_off_init();
    else
        kill(1, number);
}

void machine_ends(void) {
    ending = milliseconds();
    kill(-1, SIGKILL); /* as a container ends with its first process */
}

bool machine_may_end(void) {
    return channels_silent() || milliseconds() - ending > OTHERS_END_WITHIN;
}

bool machine_hurries(void) { return ending && milliseconds() - ending > HURRY_AFTER; }

void machine_over(void) { over = true; }

int machine_wait(void) { return ending ? MOMENT : -1; }

void machine_look(void) {
    if (!ending || (!(over && port_idle()) && milliseconds() - ending < WORDS_WITHIN))
        return;
    disks_freeze(false);
    disks_rest();
    reboot(LINUX_REBOOT_CMD_POWER_OFF);
}
