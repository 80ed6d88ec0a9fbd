"""Loop devices: the partition of an image file as a block device (loop(4))."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from pathlib import Path

from sublet.domain.errors import HostUnsupported
from sublet.drivers import linux

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_TRIES = 50


def mount_squashfs(file: Path, offset: int, length: int, target: Path) -> None:
    """Mount the squashfs at `offset` of `file`, read-only; its loop device goes with it."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, loop = _attach(fd, offset, length)
    finally:
        os.close(fd)
    try:
        flags = linux.MS_RDONLY | linux.MS_NODEV
        linux.mount(device, str(target), "squashfs", flags)
    finally:
        os.close(loop)  # without a mount, autoclear frees the device here


def _attach(backing: int, offset: int, length: int) -> tuple[str, int]:
    """A read-only, self-clearing loop device over a part of `backing`: its path and descriptor.

    Another process may take the free device between the two calls: then try the next.
    """
    # struct loop_config: fd, block_size, loop_info64 (offset, sizelimit, flags), reserved
    info = struct.pack(
        "=QQQQQIIII64s64s32sQQ",
        *(0, 0, 0, offset, length, 0, 0, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR),
        *(b"", b"", b"", 0, 0),
    )
    config = struct.pack("=II", backing, 0) + info + bytes(64)
    for _ in range(_TRIES):
        device = f"/dev/loop{_free()}"
        try:
            loop = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
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
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
