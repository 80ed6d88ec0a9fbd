/* What a new process does to become the command: identity, limits, directory, execve. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum step { LIMITS = 1, USER, DIRECTORY, COMMAND, NOT_IN_PATH };

struct refusal {
    int step, number;
};

int busybox = -1;

static const struct {
    const char *name;
    int resource;
} limits[] = {
    {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},
    {"cpu", RLIMIT_CPU},         {"data", RLIMIT_DATA},
    {"fsize", RLIMIT_FSIZE},     {"locks", RLIMIT_LOCKS},
    {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE},
    {"nice", RLIMIT_NICE},       {"nofile", RLIMIT_NOFILE},
    {"nproc", RLIMIT_NPROC},     {"rss", RLIMIT_RSS},
    {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},
    {"sigpending", RLIMIT_SIGPENDING}, {"stack", RLIMIT_STACK},
};

static rlim_t limit_value(const char *text) {
    return strcmp(text, "unlimited") == 0 || text[0] == '-' ? RLIM_INFINITY
                                                            : (rlim_t)strtoull(text, NULL, 10);
}

static bool set_limits(const struct text *request) {
    const char *value;
    size_t at = 0;

    while ((value = text_next(request, "ulimit", &at))) {
        char name[32], soft[32], hard[32];
        size_t n = 0, count = sizeof limits / sizeof *limits;
        if (sscanf(value, "%31s %31s %31s", name, soft, hard) != 3)
            continue;
        while (n < count && strcasecmp(limits[n].name, name) != 0)
            n++;
        struct rlimit limit = {limit_value(soft), limit_value(hard)};
        if (n == count || setrlimit((__rlimit_resource_t)limits[n].resource, &limit) < 0)
            return false;
    }
    return true;
}

static void reset_signals(void) {
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    if (mode == INIT && getpid() != 1)
        set_kernel("/proc/self/oom_score_adj", "0"); /* the agent's own is lower */
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
}

static const char *variable(char *const *environment, const char *name) {
    size_t width = strlen(name);
    for (; *environment; environment++)
        if (strncmp(*environment, name, width) == 0 && (*environment)[width] == '=')
            return *environment + width + 1;
    return NULL;
}

/* What the request says, and HOME where that is missing. */
static char **environment_of(const struct text *request, const struct user *user) {
    static char home[sizeof user->home + 8];
    char **all = text_all(request, "env");
    size_t count = 0;

    while (all && all[count])
        count++;
    if (all && !variable(all, "HOME")) {
        snprintf(home, sizeof home, "HOME=%s", user->home);
        all[count] = home;
    }
    return all;
}

/* As execvpe(3), but a text without `#!` is not run by a shell: runtimes of containers do not do
 * that either. */
static int search(char **argv, char **environment) {
    const char *paths = variable(environment, "PATH");
    char file[PATH_MAX];
    int found = 0;

    if (strchr(argv[0], '/')) {
        execve(argv[0], argv, environment);
        return COMMAND;
    }
    for (const char *at = paths ? paths : PATH; *at;) {
        int width = (int)strcspn(at, ":");
        int length = snprintf(file, sizeof file, "%.*s/%s", width, at, argv[0]);
        at += width + (at[width] == ':');
        if (width == 0 || length >= (int)sizeof file)
            continue;
        execve(file, argv, environment);
        if (errno != ENOENT && errno != ENOTDIR && !found)
            found = errno;
    }
    errno = found ? found : ENOENT;
    return found ? COMMAND : NOT_IN_PATH;
}

static int run_tool(char **argv, char **environment) {
    size_t count = 0;
    while (argv[count])
        count++;
    if (strcmp(argv[0], "files") == 0)
        _exit(copy_main((int)count, argv));
    if (strcmp(argv[0], "online") == 0)
        _exit(online_main((int)count, argv));
    if (strcmp(argv[0], "translate") == 0)
        _exit(translate_main((int)count, argv));
    char **all = calloc(count + 2, sizeof *all);
    if (all) {
        all[0] = "busybox";
        memcpy(all + 1, argv, count * sizeof *all);
        fexecve(busybox, all, environment);
    }
    return COMMAND;
}

static int become(const struct text *request, const struct user *user, char **argv) {
    const char *directory = text_get(request, "cwd");
    char **environment = environment_of(request, user);

    reset_signals();
    if (!set_limits(request))
        return LIMITS;
    if (setgroups(user->count, user->groups) < 0 || setgid(user->gid) < 0 || setuid(user->uid) < 0)
        return USER;
    if (chdir(directory && directory[0] ? directory : "/") < 0)
        return DIRECTORY;
    if (!environment)
        return USER;
    return text_is(request, "tool") ? run_tool(argv, environment) : search(argv, environment);
}

void process_become(const struct text *request, const struct user *user, char **argv, int report) {
    struct refusal refusal = {.step = become(request, user, argv), .number = errno};
    (void)!write(report, &refusal, sizeof refusal);
}

bool process_refused(int report, const char *name, struct problem *problem) {
    struct refusal refusal;
    ssize_t got;

    while ((got = read(report, &refusal, sizeof refusal)) < 0 && errno == EINTR) {
    }
    if (got != sizeof refusal)
        return false;
    bool missing = refusal.number == ENOENT || refusal.number == ENOTDIR;
    if (refusal.step == NOT_IN_PATH)
        fail(problem, 127, 0, "No such command in the image: `%s` not found in $PATH.", name);
    else if (refusal.step == COMMAND && missing)
        fail(problem, 127, refusal.number, "No such command in the image: `%s`", name);
    else if (refusal.step == COMMAND)
        fail(problem, 126, refusal.number, "The command cannot be executed: `%s`", name);
    else if (refusal.step == DIRECTORY)
        fail(problem, 126, refusal.number,
             "The command cannot be executed: its working directory cannot be entered");
    else
        fail(problem, 125, refusal.number, "The command's %s cannot be set",
             refusal.step == LIMITS ? "limits" : "user");
    return true;
}
