"""File systems of a fixed size: what is written to one ends with ENOSPC there, and never
fills the host.

An ext4 in a sparse file, on a loop device: that works on every host, with project quotas or
without, bounds inodes too, and `df` inside shows it. The file takes the room that is written.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import format_bytes
from sublet.drivers import disk, run

_OPTIONS = "noinit_itable,discard,errors=remount-ro"
"""The kernel must not fill in the tables of inodes by and by: the file would not stay sparse."""

_SUPERBLOCK = 1024


async def create(file: Path, size: int) -> None:
    """Make a file system of `size` bytes in `file`, which is there when it is complete."""
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    os.truncate(partial, size // disk.BLOCK * disk.BLOCK)
    features = ["-O", "^resize_inode,metadata_csum,64bit", "-m", "0", "-b", str(disk.BLOCK)]
    extended = ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"]
    await run.run(["mkfs.ext4", "-q", "-F", *features, *extended, str(partial)])
    partial.rename(file)


async def mount(file: Path, target: Path) -> None:
    """Mount it, as large as the file is by now."""
    target.mkdir(mode=0o700, exist_ok=True)
    disk.mount_writable(file, "ext4", target, _OPTIONS)
    if _blocks(file) < file.stat().st_size // disk.BLOCK:
        await _stretch(file)


async def grow(file: Path, size: int) -> None:
    """Make it larger, mounted or not. Raises InvalidArgument where it would become smaller."""
    now = file.stat().st_size
    if size < now:
        raise InvalidArgument(
            f"A disk of {format_bytes(now)} cannot become smaller.", hint="Give a larger size."
        )
    os.truncate(file, size // disk.BLOCK * disk.BLOCK)
    if disk.device_of(file):  # else the next mount does it
        await _stretch(file)


async def _stretch(file: Path) -> None:
    if device := disk.device_of(file):
        disk.resized(device)
        await run.run(["resize2fs", device])


def _blocks(file: Path) -> int:
    """The blocks that the file system counts (ext4's super block, s_blocks_count)."""
    with file.open("rb") as opened:
        block = os.pread(opened.fileno(), 1024, _SUPERBLOCK)
    low, high = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 0x150)[0]
    return int(low | high << 32)
