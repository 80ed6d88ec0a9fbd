"""What is mounted below a directory, and the directory that all mounts of a daemon are in."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from sublet.drivers import linux

_OCTAL = re.compile(r"\\([0-7]{3})")
_OCTAL_CHARACTERS = re.compile(r"[ \t\n\\#]")
"""What the kernel writes as backslash and three digits."""


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below `directory`, the innermost and latest first (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return points_below(str(directory), file)


def points_below(prefix: str, mountinfo: Iterable[str]) -> list[str]:
    """As `mounts_below`, of these lines. There are thousands where hundreds of instances run:
    most are told by a look for the name."""
    name = prefix.rpartition("/")[2]
    quick = "" if _OCTAL_CHARACTERS.search(name) else f"/{name}"
    found = []
    for line in mountinfo:
        if quick in line:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ", 5)[4])
            if point == prefix or point.startswith(f"{prefix}/"):
                found.append(point)
    return found[::-1]


def unmount(point: str) -> None:
    """Unmount; what is busy is detached and goes when its last user does. Gone is fine."""
    try:
        linux.umount(point)
    except OSError as error:
        if error.errno == errno.EBUSY:
            linux.umount(point, linux.MNT_DETACH)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below `directory`."""
    for point in mounts_below(directory):
        unmount(point)


def base(run: Path, identity: str) -> Path:
    """Where a daemon's mounts go: `run/mnt`, or below /run where `run` is closed to others.

    A container's root is an unprivileged user of the host, and must be able to walk
    to its files.
    """
    reachable = all(step.stat().st_mode & stat.S_IXOTH for step in (run, *run.parents))
    return run / "mnt" if reachable else Path("/run") / f"{identity}.mnt"


def share(directory: Path) -> None:
    """Make `directory` a shared mount, once.

    Supervisors keep mount namespaces of their own; only from a shared mount does an
    unmount reach their copies, so that nothing stays pinned (mount_namespaces(7)).
    It is not noexec, as /run is: runc cannot keep that on what it binds from here.
    """
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    if str(directory) not in mounts_below(directory):
        linux.mount(str(directory), str(directory), flags=linux.MS_BIND)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
        linux.mount("", str(directory), flags=flags)
        linux.mount("", str(directory), flags=linux.MS_SHARED)


def bind(source: str, target: str) -> None:
    """Show what is mounted at `source`, with its options, at `target` too."""
    linux.mount(source, target, flags=linux.MS_BIND)


def bind_idmapped(source: str, target: str, userns: str, *, read_only: bool = False) -> None:
    """Mount `source` at `target` with ids mapped as in the user namespace file `userns`.

    Raises OSError with EINVAL where the file system cannot do that
    (mount_setattr(2), MOUNT_ATTR_IDMAP).
    """
    attributes = linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_IDMAP
    attributes |= linux.MOUNT_ATTR_RDONLY if read_only else 0
    with contextlib.ExitStack() as stack:
        user_fd = os.open(userns, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, user_fd)
        tree = linux.open_tree(source)
        stack.callback(os.close, tree)
        linux.mount_setattr(tree, attributes, user_fd)
        linux.move_mount(tree, target)


def overlay(lower: str, upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay of `upper` on `lower` at `target`
    (Documentation/filesystems/overlayfs.rst)."""
    options = f"lowerdir={lower},upperdir={upper},workdir={work},metacopy=off,redirect_dir=off"
    linux.mount("overlay", str(target), "overlay", linux.MS_NODEV, options)


def sysfs(target: Path) -> None:
    """The interfaces, and what else sysfs(5) shows, of the calling thread's network namespace."""
    flags = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("sysfs", str(target), "sysfs", flags)
