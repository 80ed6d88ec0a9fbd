"""Loop devices: a file, or the partition of an image file, as a block device (loop(4)).

Every one clears itself: it goes with its last mount, whoever ends first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sublet.domain.errors import HostUnsupported
from sublet.drivers import linux
from sublet.drivers.descriptors import DIRECTORY, closing, opened

BLOCK = 4096
"""Bytes of a block of what is written: direct I/O needs that the file system below has no more."""

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_SET_CAPACITY = 0x4C82, 0x4C0A, 0x4C07
_LOOP_CLR_FD = 0x4C01
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR, _LO_FLAGS_DIRECT_IO = 1, 4, 16
_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
_TRIES = 50


def mount_squashfs(file: Path, offset: int, length: int, target: Path) -> None:
    """Mount the squashfs at `offset` of `file`, read-only; its loop device goes with it."""
    with _backed(file, _LO_FLAGS_READ_ONLY, offset, length) as device:
        flags = linux.MS_RDONLY | linux.MS_NODEV | linux.MS_NOSUID  # its ids are the host's
        linux.mount(device, str(target), "squashfs", flags)


def mount_writable(file: Path, fstype: str, target: Path, options: str) -> None:
    """Mount the file system in `file`; its loop device goes with it.

    Direct I/O: what is written is not kept in memory twice. Where the file system below
    cannot do that, the kernel falls back to buffers by itself.
    """
    with _backed(file, _LO_FLAGS_DIRECT_IO, block=BLOCK) as device:
        flags = linux.MS_NODEV | linux.MS_NOSUID | linux.MS_NOATIME
        linux.mount(device, str(target), fstype, flags, options)


@contextmanager
def _backed(
    file: Path, flags: int, offset: int = 0, length: int = 0, block: int = 0
) -> Iterator[str]:
    """The path of a loop device of (a part of) `file`; unless mounted, it goes at the end."""
    mode = os.O_RDONLY if flags & _LO_FLAGS_READ_ONLY else os.O_RDWR
    with opened(file, mode) as fd:
        device, loop = _attach(fd, mode, offset, length, flags | _LO_FLAGS_AUTOCLEAR, block)
    with closing(loop):  # without a mount, autoclear frees the device then
        yield device


def _attach(
    backing: int, mode: int, offset: int, length: int, flags: int, block: int
) -> tuple[str, int]:
    """A loop device over a part of `backing`: its path and descriptor.

    Another process may take the free device between the two calls: then try the next.
    """
    # struct loop_config: fd, block_size, loop_info64 (offset, sizelimit, flags), reserved
    info = struct.pack(
        "=QQQQQIIII64s64s32sQQ",
        *(0, 0, 0, offset, length, 0, 0, 0, flags),
        *(b"", b"", b"", 0, 0),
    )
    config = struct.pack("=II", backing, block) + info + bytes(64)
    for _ in range(_TRIES):
        device = f"/dev/loop{_free()}"
        try:
            loop = os.open(device, mode | os.O_CLOEXEC)
        except FileNotFoundError:
            time.sleep(0.001)
            continue
        try:
            fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
            return device, loop
        except OSError as error:
            os.close(loop)
            if error.errno != errno.EBUSY:
                raise
    raise HostUnsupported("No free loop device could be had.", hint="See `losetup -a`.")


def _free() -> int:
    with opened("/dev/loop-control", os.O_RDWR) as control:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)


def loops(below: Path) -> dict[str, Path]:
    """The loop devices of files below a directory: device → file (sysfs, loop/backing_file)."""
    found = {}
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            file = Path(entry.read_text().rstrip("\n").removesuffix(" (deleted)"))
            if file.is_relative_to(below):
                found[f"/dev/{entry.parts[3]}"] = file
    return found


def device_of(file: Path) -> str | None:
    """The loop device of a file, if it has one."""
    return next((device for device, of in loops(file.parent).items() if of == file), None)


def resized(device: str) -> None:
    """Tell the device that its file has another size now."""
    with opened(device, os.O_RDWR) as fd:
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY)


def detach(device: str) -> None:
    """Free a loop device that nobody should have; gone is fine."""
    with contextlib.suppress(OSError), opened(device, os.O_RDWR) as fd:
        fcntl.ioctl(fd, _LOOP_CLR_FD)


def thaw(mounted: Path) -> None:
    """End a freeze that a killed daemon left; nothing happens where there is none."""
    if os.path.ismount(mounted):
        with contextlib.suppress(OSError), opened(mounted, DIRECTORY) as fd:
            fcntl.ioctl(fd, _FITHAW, 0)


@contextmanager
def frozen(mounted: Path) -> Iterator[None]:
    """Meanwhile the file system is whole on its device, and writers wait (ioctl_fifreeze)."""
    with opened(mounted, DIRECTORY) as fd:
        fcntl.ioctl(fd, _FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, _FITHAW, 0)
