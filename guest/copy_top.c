/* The instance's processes, for the host to list: first /etc/passwd, then of each its numbers and
 * its command line, each text ended by a zero byte. The kernel's own are none of them, nor are the
 * agent and this. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"
#include "guest.h"

enum { KERNEL_THREAD = 0x200000, LONGEST = 4096, PASSWD_MOST = 1 << 18 }; /* PF_KTHREAD */

static size_t read_in(int directory, const char *name, char *text, size_t size) {
    size_t length = 0;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    for (ssize_t got = 1; fd >= 0 && got > 0 && length < size - 1; length += (size_t)got)
        if ((got = read(fd, text + length, size - 1 - length)) < 0)
            break;
    if (fd >= 0)
        close(fd);
    text[length] = '\0';
    return length;
}

static void put_text(const char *text) { put(text, strlen(text) + 1); }

static void put_passwd(void) {
    static char text[PASSWD_MOST];
    struct stat status;
    if (stat("/etc/passwd", &status) == 0 && S_ISREG(status.st_mode))
        read_in(AT_FDCWD, "/etc/passwd", text, sizeof text);
    put_text(text);
}

/* The words of a command line, or the name of what has none. */
static void put_command(int directory, const char *stat_text) {
    char words[LONGEST];
    size_t length = read_in(directory, "cmdline", words, sizeof words);

    while (length && words[length - 1] == '\0')
        length--;
    for (size_t n = 0; n < length; n++)
        if (words[n] == '\0')
            words[n] = ' ';
    if (!length) {
        const char *open = strchr(stat_text, '('), *shut = strrchr(stat_text, ')');
        snprintf(words, sizeof words, "[%.*s]", open && shut ? (int)(shut - open - 1) : 0,
                 open ? open + 1 : "");
    }
    put_text(words);
}

/* The agent, or a child of it that has not become anything else. */
static bool is_ours(int directory) {
    struct stat own, other;
    return stat("/proc/self/exe", &own) == 0 && fstatat(directory, "exe", &other, 0) == 0 &&
           own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

/* `PID PARENT STATE UID TICKS BYTES`, ticks of a hundredth of a second. */
static void put_process(int directory) {
    char text[1024], line[200], state;
    struct stat owner;
    int pid, parent;
    unsigned flags;
    unsigned long user, system;
    long pages;

    if (!read_in(directory, "stat", text, sizeof text) || fstat(directory, &owner) < 0)
        return;
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(text, "%d", &pid) != 1 ||
        sscanf(rest + 1, " %c %d %*d %*d %*d %*d %u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d "
                         "%*d %*u %*u %ld", &state, &parent, &flags, &user, &system, &pages) != 6)
        return;
    if (flags & KERNEL_THREAD || is_ours(directory))
        return;
    snprintf(line, sizeof line, "%d %d %c %u %lu %lld", pid, parent, state, owner.st_uid,
             (user + system) * 100 / (unsigned long)sysconf(_SC_CLK_TCK),
             (long long)pages * sysconf(_SC_PAGESIZE));
    put_text(line);
    put_command(directory, text);
}

void copy_processes(void) {
    DIR *all = opendir("/proc");

    put_passwd();
    for (struct dirent *each; all && (each = readdir(all));) {
        if (!isdigit((unsigned char)each->d_name[0]))
            continue;
        int directory = openat(dirfd(all), each->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
            continue;
        put_process(directory);
        close(directory);
    }
    put_flush();
}
