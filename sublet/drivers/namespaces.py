"""Namespaces: user and network, kept alive by files that they are bound to; mounts."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from sublet.drivers import linux, run

DEADLINE = 10.0
ID_COUNT = 65536
"""Ids that an instance's user namespace maps: 0 to 65535."""


def create(
    user_file: Path,
    net_file: Path | None,
    uid_base: int,
    *,
    inner: int = 0,
    keep_root: bool = False,
) -> None:
    """Bind a new user namespace to `user_file`, and to `net_file` a network namespace in it.

    Ids `inner`… inside are `uid_base`… outside; with `keep_root`, and not for processes, 0 is
    0 as well. The network namespace belongs to the user
    namespace, without which its sysfs could not be mounted inside
    (user_namespaces(7), namespaces(7)). The helper program makes them: a copy of the daemon
    would cost it as much again in page faults.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(DEADLINE)
    with theirs:
        what = "network" if net_file else "user"
        pid = run.launch([str(run.HELPER), "namespaces", what], [theirs.fileno()])
    try:
        problem = int.from_bytes(ours.recv(4), sys.byteorder)
        if problem:
            raise OSError(problem, "a user namespace could not be made")
        mapping = ("0 0 1\n" if keep_root else "") + f"{inner} {uid_base} {ID_COUNT}\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(mapping)
        _bind(f"/proc/{pid}/ns/user", user_file)
        if net_file:
            _bind(f"/proc/{pid}/ns/net", net_file)
    finally:
        ours.close()  # it waits for that
        os.waitpid(pid, 0)


def _bind(source: str, target: Path) -> None:
    target.touch()
    linux.mount(source, str(target), flags=linux.MS_BIND)


def mounts_for_runtimes(*, cgroup2: bool) -> int:
    """A mount namespace in which container runtimes work; its descriptor.

    /dev/null is read-only there, and with `cgroup2` nothing but that is at /sys/fs/cgroup.
    What is mounted or unmounted below a shared mount later on is so there too. The thread
    that makes it leaves the others' (unshare(2), CLONE_NEWNS) and ends.
    """
    made: list[int | OSError] = []
    thread = threading.Thread(target=_make_mounts, args=(cgroup2, made))
    thread.start()
    thread.join()
    [outcome] = made
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def _make_mounts(cgroup2: bool, made: list[int | OSError]) -> None:
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        linux.mount("/dev/null", "/dev/null", flags=linux.MS_BIND)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
        linux.mount("", "/dev/null", flags=flags)
        if cgroup2:
            linux.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        made.append(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        made.append(error)
