"""Saving a machine's memory: how a memory image comes to be (`memory.py` says what one is)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sublet.domain.errors import DiskFull, MemoryUnusable, ProcessFailed
from sublet.domain.units import MIB
from sublet.drivers import files, linux, reflink, run
from sublet.drivers.descriptors import sync
from sublet.drivers.vm.memory import MAGIC, PARTIAL, MemoryImage, digest

MACHINE = run.HELPER.with_name("sublet-machine")
"""The program that copies the pages (`machine/`)."""

_FULL = "No space left on the host for the memory of the VM."


class Saving:
    """A memory image in the making: begun while the guest runs, filled while it stands still,
    and there, instead of an earlier one, only when all of it is on the disk."""

    def __init__(self, target: Path, shape: str) -> None:
        self.target, self._shape = target, shape
        self._place = target.with_name(target.name + PARTIAL)
        self.devices = -1
        """For QEMU, to write the state of the devices to."""

    @classmethod
    async def begin(cls, target: Path, shape: str, size: int, base: Path | None) -> Saving:
        """Make room for `size` bytes of RAM in the place of `target`; `base` is what the RAM is
        mapped from, or a file of the same content, None where that is empty. Raises DiskFull."""
        saving = cls(target, shape)
        try:
            with _translated():
                await files.remove(saving._place)
                saving._place.mkdir(mode=0o700, parents=True)
                memory = saving._place / "memory"
                if base:
                    await asyncio.to_thread(reflink.copy_file, base, memory)
                else:
                    memory.touch(mode=0o600)
                os.truncate(memory, size)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                saving.devices = os.open(saving._place / "devices", flags, 0o600)
        except BaseException:
            await saving.discard()
            raise
        return saving

    @contextmanager
    def roomy(self) -> Iterator[None]:
        """QEMU, which writes to `devices` in the block, does not tell a full disk from others'
        errors. Raises DiskFull."""
        try:
            yield
        except ProcessFailed as error:
            left = os.fstatvfs(self.devices)
            if left.f_bavail * left.f_frsize >= MIB:
                raise
            raise DiskFull(_FULL) from error

    async def pages(self, pid: int, inode: int) -> int:
        """Copy what the guest has changed in its private mapping of `inode`; QEMU, process
        `pid`, stands still. The bytes written. Raises DiskFull, ProcessFailed."""
        memory = self._place / "memory"
        argv = [str(MACHINE), "memory", str(pid), str(inode), str(memory)]
        return int((await run.run(argv)).stdout)

    async def disk(self, file: Path) -> None:
        """Keep the writable disk as well; the machine stands still. Raises DiskFull."""
        with _translated():
            await asyncio.to_thread(reflink.copy_file, file, self._place / "disk")

    async def commit(self) -> MemoryImage:
        """Put it on the disk and in the place of an earlier one. Raises DiskFull."""
        try:
            with _translated():
                await asyncio.to_thread(self._commit)
        finally:
            await self.discard()
        return MemoryImage(self.target)

    def _commit(self) -> None:
        if os.pread(self.devices, len(MAGIC), 0) != MAGIC:
            raise MemoryUnusable("QEMU wrote no state of the devices.")
        sizes = {file.name: file.stat().st_size for file in self._place.iterdir()}
        described = {"shape": self._shape, **sizes, "digest": digest(self._place / "devices")}
        (self._place / "shape").write_text(json.dumps(described))
        for name in (*sizes, "shape"):
            sync(self._place / name)
        sync(self._place)
        if self.target.exists():
            linux.exchange(str(self._place), str(self.target))
        else:
            self._place.rename(self.target)
        sync(self.target.parent)

    async def discard(self) -> None:
        """Remove what is not committed. Idempotent."""
        if self.devices >= 0:
            os.close(self.devices)
            self.devices = -1
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True))


async def copy(image: MemoryImage, target: Path) -> MemoryImage:
    """Another memory image like this one, which shares its blocks where it can. Raises DiskFull."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        with _translated():
            for directory in (target, partial):
                await files.remove(directory)
            partial.mkdir(mode=0o700, parents=True)
            for name in ("memory", "devices", "shape"):
                source = image.directory / name
                await asyncio.to_thread(reflink.copy_file, source, partial / name)
            partial.rename(target)
    finally:
        await asyncio.shield(files.remove(partial))
    return MemoryImage(target)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(_FULL) from error
