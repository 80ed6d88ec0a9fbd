"""Devices of the host that an instance is given.

An instance cannot make device nodes (mknod(2) needs the host's own CAP_MKNOD), and everything that
is mounted in it is `nodev`, so it reaches the devices that it is handed and no others. Each gets
a node of its own on a small tmpfs of the instance. The node belongs to the host's root, whom
the instance does not know: nobody inside can change it, and its capabilities do not count for it
(user_namespaces(7)). Its group is the instance's; the mode's bits say what is permitted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import HostUnsupported, InvalidArgument
from sublet.domain.privileges import Device
from sublet.drivers import linux

MOST = 256
"""Nodes of one instance."""

_SIZE = 64 << 10


@dataclass(frozen=True, slots=True)
class Node:
    """A device node to bind: `source` on the host, `destination` inside."""

    source: str
    destination: str


def provide(
    directory: Path, devices: Iterable[Device], uid_base: int, gid: int
) -> tuple[Node, ...]:
    """Make the nodes of the devices in `directory`, for the group `gid` of the instance.

    Raises InvalidArgument for what is no device, HostUnsupported where no node can be made.
    """
    wanted = [each for device in devices for each in _expanded(device)]
    if not wanted:
        return ()
    if len(wanted) > MOST:
        raise InvalidArgument(
            f"That is {len(wanted)} devices; an instance has {MOST} at most.",
            hint="Name the devices that it needs instead of their directory.",
        )
    directory.mkdir(mode=0o700, exist_ok=True)
    options = f"mode=0500,uid={uid_base},gid={uid_base},size={_SIZE}"
    linux.mount("tmpfs", str(directory), "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    return tuple(
        Node(_node(directory / str(number), each, uid_base + gid), each.destination)
        for number, each in enumerate(wanted)
    )


def _expanded(device: Device) -> list[Device]:
    """The device; where a directory is named, those that are in it."""
    source = Path(device.source)
    if not source.is_dir():
        return [device]
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if _is_device(path))
    return [Device(f"{source}/{n}", f"{device.destination}/{n}", device.access) for n in names]


def _is_device(path: Path) -> bool:
    return not path.is_symlink() and (path.is_block_device() or path.is_char_device())


def _node(path: Path, device: Device, gid: int) -> str:
    """Make the node of one device at `path`; the path."""
    try:
        found = os.stat(device.source)
    except OSError as error:
        raise InvalidArgument(
            f"The device {device.source} is not there: {error.strerror}.",
            hint="Mend its name; `ls /dev` lists those of this host.",
        ) from error
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFBLK, stat.S_IFCHR):
        raise InvalidArgument(
            f"{device.source} is not a device.", hint="Mount files and directories with -v."
        )
    mode = permitted(found.st_mode, device.access)
    try:
        os.mknod(path, kind, found.st_rdev)
        os.chown(path, 0, gid)
        os.chmod(path, mode)
    except OSError as error:
        raise HostUnsupported(
            f"{device.source} cannot be passed on: {error.strerror}.",
            hint="The daemon needs CAP_MKNOD on the host.",
        ) from error
    return str(path)


def permitted(mode: int, access: str) -> int:
    """The mode of a node: `access` for its group, and for others as far as the host's node (of
    this `mode`) is open to everybody."""
    bits = 4 * ("r" in access) + 2 * ("w" in access)
    return bits << 3 | bits & mode & 7
