"""The Linux system calls that Python's standard library lacks.

Each function is one system call (its man page is its documentation) and raises
OSError with the call's errno. Numbers of `open_tree`, `move_mount`,
`mount_setattr`, `openat2` and `pidfd_*` are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME = 1024
MS_BIND, MS_REC, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV = 0x1, 0x4
MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x02, 0x04, 0x10

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
_M_ARENA_MAX = -8
_CLOCK_REALTIME, _TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 0, 1, 2
_RENAME_EXCHANGE = 2


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode()
        ),
        target,
    )


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2); symbolic links are not followed."""
    _check(_libc.umount2(target.encode(), flags | UMOUNT_NOFOLLOW), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2)."""
    _check(_libc.setns(fd, flags), "setns")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), "prctl")


def capset(mask: int) -> None:
    """capset(2): the calling thread's effective and permitted capabilities; none inheritable."""
    head = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_libc.capset(head, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")


def open_tree(path: str) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a descriptor of a detached copy of the mount."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    return _check(
        _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, path.encode(), ctypes.c_uint(flags)), path
    )


def mount_setattr(fd: int, attributes: int, userns_fd: int = 0) -> None:
    """mount_setattr(2) on the mount that `fd` refers to."""
    data = struct.pack("=QQQQ", attributes, 0, 0, userns_fd)
    _check(
        _libc.syscall(_SYS_MOUNT_SETATTR, fd, b"", ctypes.c_uint(_AT_EMPTY_PATH), data, len(data)),
        "mount_setattr",
    )


def move_mount(fd: int, target: str) -> None:
    """move_mount(2): attach the detached mount `fd` at `target`."""
    _check(
        _libc.syscall(
            _SYS_MOVE_MOUNT,
            fd,
            b"",
            _AT_FDCWD,
            target.encode(),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def openat2(
    dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT
) -> int:
    """openat2(2): `path` resolved as `resolve` says; by default with `dirfd` as the root."""
    data = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    return _check(_libc.syscall(_SYS_OPENAT2, dirfd, path.encode(), data, len(data)), path)


def exchange(one: str, other: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE: both names are there, before and after."""
    _check(
        _libc.renameat2(
            _AT_FDCWD, one.encode(), _AT_FDCWD, other.encode(), ctypes.c_uint(_RENAME_EXCHANGE)
        ),
        one,
    )


@contextmanager
def entered(fd: int, kind: int, own: str) -> Iterator[None]:
    """The calling thread is in the namespace `fd` of the given kind, then back in its own.

    `own` names the namespace's file below /proc/thread-self/ns. No awaiting inside.
    """
    back = os.open(f"/proc/thread-self/ns/{own}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, kind)
        try:
            yield
        finally:
            setns(back, kind)
    finally:
        os.close(back)


def syncfs(fd: int) -> None:
    """syncfs(2): all of the file system that `fd` is on is on its disk then."""
    _check(_libc.syncfs(fd), "syncfs")


_NEVER = 2.0**40
"""Seconds since the epoch: in 35,000 years."""


def timerfd(moment: float, *, or_set: bool = False, boot: bool = False) -> int:
    """timerfd_create(2), timerfd_settime(2): a descriptor that can be read from when the wall
    clock has come to `moment`, seconds since the epoch and more than 0; with `or_set` also when
    the clock was set (TFD_TIMER_CANCEL_ON_SET). With `boot` it is a clock that nobody sets:
    seconds since the host's start, its sleep included."""
    clock = time.CLOCK_BOOTTIME if boot else _CLOCK_REALTIME
    fd = _check(_libc.timerfd_create(clock, os.O_CLOEXEC | os.O_NONBLOCK), "timerfd")
    seconds, rest = divmod(min(moment, _NEVER), 1)
    value = struct.pack("@llll", 0, 0, int(seconds), int(rest * 1e9))
    try:
        flags = _TFD_TIMER_ABSTIME | (_TFD_TIMER_CANCEL_ON_SET if or_set else 0)
        _check(_libc.timerfd_settime(fd, flags, value, None), "timerfd")
    except OSError:
        os.close(fd)
        raise
    return fd


def one_heap() -> None:
    """Have all threads allocate from one heap (mallopt(3), M_ARENA_MAX), where the C library can.

    Otherwise each thread that ever called libnftables keeps a heap of its own, of 7 MB.
    """
    if mallopt := getattr(_libc, "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)
