"""Where writable layers, snapshots and their volumes are: a file system that shares blocks.

The host's own where it can (FICLONE, ioctl_ficlone(2)); else an XFS with reflinks in one sparse
file, `ROOT/pool.img`, mounted at `RUN/mnt/pool`. Where neither is to be had they are below ROOT
all the same, and a copy is a real one.

The pool never promises more than the host has: XFS holds back (XFS_IOC_SET_RESBLKS) what the
host could not give, so that a tenant is told ENOSPC when it writes, not an error long after.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import struct
import tempfile
from pathlib import Path

from sublet.domain.errors import HostUnsupported, SubletError
from sublet.domain.units import GIB, MIB, TIB
from sublet.drivers import disk, run
from sublet.drivers.descriptors import DIRECTORY, opened

log = logging.getLogger(__name__)

LEAST = GIB
"""Free bytes of the host below which no pool is made: its log alone takes 64 MiB."""

HEADROOM = 64 * MIB
"""Bytes of the host's free space that the pool leaves alone, for the database and the logs."""

BALANCE_INTERVAL = 1.0
"""Seconds between looks at how much the host has left."""

_OWN_RESERVE = 8192
"""Blocks that XFS holds back by itself, to be able to delete when it is full."""

_FICLONE = 0x40049409
_SET_RESERVED, _GET_RESERVED = 0xC0105872, 0x80105873


class Pool:
    """The place of one daemon's layers; `reflinks` tells whether copies share their blocks."""

    def __init__(self, root: Path, mounts: Path) -> None:
        self.root = root
        self.file, self.point = root / "pool.img", mounts / "pool"
        self.directory = root
        self.reflinks = False

    @property
    def kind(self) -> str:
        """In words, for `sublet host`."""
        if self.directory == self.point:
            return "XFS with reflinks, in one file"
        return "the host's file system" + (" with reflinks" if self.reflinks else ", real copies")

    def snapshot(self, snapshot_id: str) -> Path:
        """What holds the copies of one snapshot."""
        return self.directory / "snapshots" / snapshot_id

    def space(self) -> tuple[int, int]:
        """Bytes of its file system, and how many of them can still be written."""
        return _space(self.directory)

    async def open(self) -> None:
        """Find or make the pool. Idempotent. Raises HostUnsupported where it is broken."""
        if not os.path.ismount(self.point):
            if self.file.exists():
                self._mount()
            else:
                self._use(self.root)
                if self.reflinks or not await self._made():
                    return
        await self._grow()
        self._use(self.point)
        self.balance()

    def _use(self, directory: Path) -> None:
        self.directory, self.reflinks = directory, can_clone(directory)

    def _mount(self) -> None:
        self.point.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            disk.mount_writable(self.file, "xfs", self.point, "discard")
        except OSError as error:
            raise HostUnsupported(
                f"{self.file} cannot be mounted: {error.strerror}.",
                hint="The kernel's log (dmesg) says why; xfs_repair mends a damaged one.",
            ) from error
        self.point.chmod(0o711)  # a container's root walks through

    async def _made(self) -> bool:
        """Make the pool where the host has the room, the tool and the kernel for it."""
        size, free = _space(self.root)
        if free < LEAST:
            return False
        partial = self.file.with_suffix(".partial")
        try:
            partial.unlink(missing_ok=True)
            partial.touch(mode=0o600)
            os.truncate(partial, _rounded(size))
            options = ["-m", "reflink=1", "-s", f"size={disk.BLOCK}", "-l", "size=64m"]
            await run.run(["mkfs.xfs", "-q", "-f", *options, str(partial)])
            partial.rename(self.file)
            self._mount()
        except (SubletError, OSError) as error:
            log.warning("no pool of layers, so snapshots are real copies: %s", error)
            for file in (partial, self.file):
                file.unlink(missing_ok=True)
            return False
        return True

    async def _grow(self) -> None:
        """Follow the host's file system when that has become larger."""
        size, device = _rounded(_space(self.root)[0]), disk.device_of(self.file)
        if device and size > self.file.stat().st_size:
            os.truncate(self.file, size)
            disk.resized(device)
            await run.run(["xfs_growfs", str(self.point)])

    def balance(self) -> None:
        """Hold back what the host could not give any more."""
        if self.directory != self.point:
            return
        _, host = _space(self.root)
        with opened(self.point, DIRECTORY) as fd:
            reserved = _reserved(fd, _GET_RESERVED)
            status = os.fstatvfs(fd)
            free = status.f_bfree + reserved
            lacking = free - max(0, host - HEADROOM) // status.f_frsize
            wanted = max(_OWN_RESERVE, lacking)
            if abs(wanted - reserved) * status.f_frsize >= MIB:
                _reserved(fd, _SET_RESERVED, wanted)

    async def guard(self) -> None:
        """Balance for ever: others write to the host's disk as well."""
        while self.directory == self.point:
            try:
                self.balance()
            except OSError as error:
                log.error("the pool cannot be balanced: %s", error)
            await asyncio.sleep(BALANCE_INTERVAL)


def can_clone(directory: Path) -> bool:
    """Whether files in `directory` can share blocks."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(tempfile.TemporaryFile(dir=directory))
        target = stack.enter_context(tempfile.TemporaryFile(dir=directory))
        source.write(bytes(disk.BLOCK))
        source.flush()
        return clone(source.fileno(), target.fileno())


def clone(source: int, target: int) -> bool:
    """Make the file `target` share all blocks of `source`; False where they cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True


def _space(directory: Path) -> tuple[int, int]:
    """Bytes of the file system, and how many of them are free."""
    status = os.statvfs(directory)
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def _rounded(size: int) -> int:
    return max(LEAST, min(size, 16 * TIB)) // MIB * MIB  # ext4 has no larger files


def _reserved(fd: int, request: int, blocks: int = 0) -> int:
    """The blocks that XFS holds back, or sets aside (struct xfs_fsop_resblks)."""
    answer = fcntl.ioctl(fd, request, struct.pack("=QQ", blocks, 0))
    return int(struct.unpack("=QQ", answer)[0])
