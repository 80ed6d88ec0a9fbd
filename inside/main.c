/* sublet-inside PARENT USER MOUNT ROOT VERB …: what guest/copy.c does, in a container.
 *
 * PARENT is the process without which there is nobody to answer. USER, MOUNT and ROOT are
 * descriptors: of the container's user namespace, and of its mount namespace or (MOUNT -1) of a
 * directory to take for the root.
 *
 * It is static and loads nothing once it is inside (CVE-2019-14271). It becomes root of the
 * container's user namespace, in the container's root directory, with no descriptor but its standard
 * streams; every path, every symbolic link that a tenant swaps at whatever moment (CVE-2018-15664),
 * is resolved in there by the kernel. Nothing of the container is executed. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../guest/copy.h"
#include "../guest/guest.h"

enum { ARGUMENTS = 4, MEMORY = 1 << 30 };

int old_root = -1; /* there is no initramfs here */

static void must_be(long result, const char *step) {
    if (result < 0)
        give_up(errno, step);
}

/* CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP of capabilities(7). */
static void keep_capabilities(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    const uint32_t low = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH |
                         1 << CAP_FOWNER | 1 << CAP_FSETID | 1U << CAP_SETFCAP;
    struct __user_cap_data_struct data[2] = {{.effective = low, .permitted = low}};

    must_be(syscall(SYS_capset, &head, data), "the capabilities");
}

/* In this order, as each step takes rights away; there is no way back. */
static void enter(int user, int mount, int root) {
    const struct rlimit nothing = {0, 0}, memory = {MEMORY, MEMORY};

    must_be(setrlimit(RLIMIT_CORE, &nothing), "the limits");
    must_be(setrlimit(RLIMIT_AS, &memory), "the limits");
    must_be(setns(user, CLONE_NEWUSER), "the user namespace");
    if (mount >= 0) {
        must_be(setns(mount, CLONE_NEWNS), "the mount namespace");
    } else {
        must_be(fchdir(root), "the root");
        must_be(chroot("."), "the root");
    }
    must_be(chdir("/"), "the root");
    must_be(setgroups(0, NULL), "the groups");
    must_be(setresgid(0, 0, 0), "the group");
    must_be(setresuid(0, 0, 0), "the user");
    must_be(close_range(3, ~0U, 0), "the descriptors");
    must_be(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "the privileges");
    keep_capabilities();
    must_be(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "the dumps");
    umask(0);
}

int main(int count, char **argv) {
    if (count <= ARGUMENTS + 1)
        give_up(EINVAL, "files");
    enter(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    /* The changes of ids would have taken it away. */
    must_be(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "the parent");
    if (getppid() != atoi(argv[1]))
        return 1;
    return copy_main(count - ARGUMENTS, argv + ARGUMENTS);
}
