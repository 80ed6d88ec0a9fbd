"""Programs that read a stranger's bytes: no privileges, no network, no host files.

bubblewrap gives them mount, pid, network and IPC namespaces with nothing in them but
/usr, read-only, and the named files; setpriv makes them nobody. A user namespace is
not used: many hosts forbid unprivileged ones, and as root it is not needed.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

NOBODY = 65534
MAX_MEMORY, MAX_CPU_SECONDS = 8 << 30, 1800


def confined(
    argv: Sequence[str],
    *,
    readable: Mapping[str, str] | None = None,
    writable: Mapping[str, str] | None = None,
) -> list[str]:
    """`argv` so that it sees only /usr and the given files (inside: outside).

    The files must be readable, the others writable, by the user `NOBODY`.
    """
    spaces = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")]
    options = [*spaces, "--unshare-cgroup-try", "--new-session", "--die-with-parent"]
    options += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache"]
    options += ["/etc/ld.so.cache"]
    for directory in ("/bin", "/sbin", "/lib", "/lib64"):
        options += ["--ro-bind-try", directory, directory]
    for inside, outside in (readable or {}).items():
        options += ["--ro-bind", outside, inside]
    for inside, outside in (writable or {}).items():
        options += ["--bind", outside, inside]
    options += ["--dev", "/dev", "--chdir", "/", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    options += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return ["bwrap", *options, "--", "setpriv", *user, "--", *argv]


COPYING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")
"""What root needs to copy files with all their attributes; the last for `trusted.` ones."""


def caged(
    argv: Sequence[str],
    directories: Mapping[str, str],
    *,
    network: bool = False,
    name: str = "",
) -> list[str]:
    """`argv` as root that sees only /usr and the given directories (inside: outside); with
    `network`, what programs need for that as well, such as SSH's keys.

    For what walks through trees while strangers change them: a link that is put in its way
    leads nowhere. With a `name` it is on a host of that name: who notes down host and process, as
    in a lock, means no process outside.
    """
    options = ["--unshare-uts", "--hostname", name] if name else []
    options += ["--unshare-pid", "--unshare-ipc", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        options += ["--ro-bind-try", f"/{name}", f"/{name}"]
    if network:
        for name in ("/etc", "/run/systemd/resolve", os.path.expanduser("~/.ssh")):
            options += ["--ro-bind-try", name, name]
        options += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for inside, outside in directories.items():
        options += ["--bind", outside, inside]
    options += ["--cap-drop", "ALL"]
    for name in COPYING:
        options += ["--cap-add", f"CAP_{name}"]
    return ["bwrap", *options, "--", *argv]


def limit() -> None:
    """For `before_exec`: bounds on memory and CPU time, where the host's are not lower."""
    for kind, most in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))
