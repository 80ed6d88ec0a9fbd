"""The writable disks of VMs: an ext4 in `<pool>/instances/ID/disk.img`, with `upper` and `work`.

The guest has the file as a block device and mounts it itself; ids in it are the guest's own. What
a guest has written raw is hostile to whoever mounts it, so **the host never mounts it**, nor does
any tool of the host repair it: a guest does that, and files of a stopped VM are read by a guest,
too. From here only the first bytes are looked at, in user space.

A new disk is a copy, with shared blocks, of a blank of its size, which is made once: 1 ms.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
from pathlib import Path

from sublet.domain.errors import CorruptDisk, ProcessFailed
from sublet.domain.machine import DEFAULT_DISK
from sublet.domain.size import check_disk, check_growth
from sublet.domain.units import MIB, format_bytes
from sublet.drivers import disk, diskimage, files, reflink, run
from sublet.drivers.descriptors import opened
from sublet.drivers.pool import Pool
from sublet.drivers.vm import superblock
from sublet.image import qcow2

BLANKS = 8
"""Sizes of which a blank is kept; each takes less than 1 MB."""

_FEATURES = "^resize_inode,metadata_csum,metadata_csum_seed,64bit"
"""The checksums do not depend on the UUID, so that each disk can be given one of its own."""


class Disks:
    """The disks of one daemon's VMs, in its pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._making = asyncio.Lock()

    def path(self, instance_id: str) -> Path:
        """Where the disk of the instance is, or will be."""
        return self._pool.directory / "instances" / instance_id / "disk.img"

    async def create(self, instance_id: str, size: int = DEFAULT_DISK) -> Path:
        """Make the disk, of `size` bytes, unless there is one. Raises InvalidArgument, DiskFull."""
        file = self.path(instance_id)
        await self._create(file, size, ("upper", "work"))
        return file

    async def volume(self, file: Path, size: int) -> None:
        """Make a volume's disk, with a directory `data`, unless there is one. Raises likewise."""
        await self._create(file, size, ("data",))

    async def _create(self, file: Path, size: int, directories: tuple[str, ...]) -> None:
        if file.exists():
            return
        size = check_disk(size) // MIB * MIB
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.unlink(missing_ok=True)
        if file.parent.stat().st_dev == self._pool.directory.stat().st_dev:
            reflink.copy_file(await self._blank(size, directories), partial)
            superblock.renew(partial)
        else:
            await _format(partial, size, directories)
        partial.rename(file)

    async def _blank(self, size: int, directories: tuple[str, ...]) -> Path:
        """An empty disk of that size; the least recently used others go."""
        kept = self._pool.directory / "blanks"
        file = kept / f"{size}-{directories[0]}.img"
        async with self._making:
            if file.exists():
                os.utime(file)
                return file
            kept.mkdir(mode=0o700, exist_ok=True)
            for name in _oldest_first(kept)[: -(BLANKS - 1)]:
                (kept / name).unlink()
            partial = file.with_name(f"{file.name}.partial")
            await _format(partial, size, directories)
            partial.rename(file)
        return file


def _oldest_first(directory: Path) -> list[str]:
    return sorted(files.entries(directory), key=lambda name: (directory / name).stat().st_mtime)


async def of_tree(file: Path, size: int, tree: Path) -> None:
    """Make a disk with the files of a tree, which nobody changes. Raises ProcessFailed where they
    do not fit, InvalidArgument."""
    await _fill(file, check_disk(size) // MIB * MIB, tree)
    superblock.touch(file)  # no template's disk takes its place


async def _format(file: Path, size: int, directories: tuple[str, ...]) -> None:
    """Make a file system with these directories."""
    with tempfile.TemporaryDirectory() as tree:
        for name in directories:
            (Path(tree) / name).mkdir(mode=0o755)
        await _fill(file, size, Path(tree))


async def _fill(file: Path, size: int, tree: Path) -> None:
    """Make a file system with what is in the tree; no mount is needed for that."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    os.truncate(file, size)
    journal = ["-J", f"size={min(32, max(4, size // MIB // 16))}"] if size >= 64 * MIB else []
    argv = ["mkfs.ext4", "-q", "-F", "-O", _FEATURES, "-m", "0", "-b", str(disk.BLOCK)]
    argv += ["-d", str(tree), *journal, "-E"]
    common = "nodiscard,root_owner=0:0,lazy_itable_init=1"
    try:  # the file is all zeros: nobody has to write any (e2fsprogs 1.47)
        await run.run([*argv, f"{common},assume_storage_prezeroed=1", str(file)])
    except ProcessFailed:
        await run.run([*argv, common, str(file)])


def check(file: Path) -> None:
    """See that a VM can be started with this disk. Raises CorruptDisk.

    A qcow2 disk is QEMU's to judge but for its first bytes; what else is wrong with an ext4, the
    guest's kernel finds.
    """
    try:
        with opened(file, os.O_RDONLY | os.O_NOFOLLOW) as fd:
            head, size = os.pread(fd, superblock.END, 0), os.fstat(fd).st_size
    except FileNotFoundError:
        raise CorruptDisk(f"The disk {file} is gone.") from None
    if head.startswith(qcow2.MAGIC):
        return
    try:
        blocks, block = superblock.extent(head)
    except (ValueError, struct.error):
        raise CorruptDisk(
            f"The disk {file} is no ext4 file system any more: its super block is overwritten."
        ) from None
    if blocks * block > size:
        raise CorruptDisk(
            f"The disk {file} is truncated: its file system has {format_bytes(blocks * block)}, "
            f"the file {format_bytes(size)}."
        )


def untouched(file: Path) -> bool:
    """Whether no guest has used this disk yet; a qcow2 disk, and one that is damaged, is none."""
    with opened(file, os.O_RDONLY | os.O_NOFOLLOW) as fd:
        try:
            return superblock.untouched(os.pread(fd, superblock.END, 0))
        except (ValueError, struct.error):
            return False


def adopt(file: Path, template: Path) -> None:
    """Let a disk that no guest has used yet be the one that a template's guest has mounted, if it
    is as large. The guest looks too: another one it takes for what it is."""
    if not untouched(file) or file.stat().st_size != template.stat().st_size:
        return
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    reflink.copy_file(template, partial)
    partial.rename(file)


def grow(file: Path, size: int) -> None:
    """Make the disk of a stopped VM larger; the guest stretches its file system when it mounts it.

    Raises InvalidArgument where it would become smaller.
    """
    with opened(file) as fd:
        if os.pread(fd, len(qcow2.MAGIC), 0) == qcow2.MAGIC:
            diskimage.grow(file, size)
            return
        now = os.fstat(fd).st_size
    os.truncate(file, check_growth(now, size) // MIB * MIB)
