"""File systems of a fixed size: what is written to one ends with ENOSPC there, and never
fills the host.

An ext4 in a sparse file, on a loop device: that works on every host, with project quotas or
without, bounds inodes too, and `df` inside shows it. The file takes the room that is written.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from sublet.domain.errors import WrongState
from sublet.domain.size import check_growth
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
    """Mount it, as large as the file is."""
    target.mkdir(mode=0o700, exist_ok=True)
    if _blocks(file) < file.stat().st_size // disk.BLOCK:
        await _stretch(file)
    disk.mount_writable(file, "ext4", target, _OPTIONS)


async def grow(file: Path, size: int) -> None:
    """Make it larger; one that is mounted only where the host lets us.

    Raises InvalidArgument where it would become smaller, WrongState.
    """
    now = file.stat().st_size
    check_growth(now, size)
    os.truncate(file, size // disk.BLOCK * disk.BLOCK)
    device = disk.device_of(file)
    if not device:
        return  # the next mount stretches it
    disk.resized(device)
    result = await run.run(["resize2fs", device], check=False)
    if result.code:  # it takes CAP_SYS_RESOURCE, which not every root has
        os.truncate(file, now)
        disk.resized(device)
        raise WrongState(
            "This host does not let the disk of a running instance grow.",
            hint="Stop the instance first; its disk grows when it is started again.",
        )


async def _stretch(file: Path) -> None:
    """Make the file system as large as its file; e2fsck comes first, as resize2fs demands."""
    argv = ["e2fsck", "-f", "-p", str(file)]
    result = await run.run(argv, check=False)
    if result.code > 1:  # 1: it has mended something (e2fsck(8))
        raise run.failure(argv, result)
    await run.run(["resize2fs", str(file)])


def _blocks(file: Path) -> int:
    """The blocks that the file system counts (ext4's super block, s_blocks_count)."""
    with file.open("rb") as opened:
        block = os.pread(opened.fileno(), 1024, _SUPERBLOCK)
    low, high = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 0x150)[0]
    return int(low | high << 32)
