"""The images that are mounted: each once, shared by all instances made of it.

Where the kernel cannot map the ids of a mounted SquashFS (before Linux 6.2), the image
is unpacked once instead, onto the host's file system, for as long as the image is there;
everything else stays the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from sublet.drivers import disk, files, linux, mount, namespaces, run

_PARTIAL = ".partial"

KEPT = 60.0
"""Seconds for which the mount of an image that no instance uses is kept."""


class Layers:
    """Mounted images of one daemon, below `mounts`; `unpacked` is used where mounts cannot be
    id-mapped. `mapped` None: find out by trying, once."""

    def __init__(self, mounts: Path, unpacked: Path, *, mapped: bool | None = None) -> None:
        self.mounts = mounts
        self.unpacked = unpacked
        self.mapped = mapped
        self._users: dict[str, set[str]] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._unpacking: dict[str, asyncio.Lock] = {}

    async def acquire(self, file: Path, offset: int, length: int, user: str) -> Path:
        """The directory that shows the image in `file`, for the instance `user`."""
        key = file.stem
        target = self.mounts / key
        self._use(key, user)
        if not os.path.ismount(target):
            self.mounts.mkdir(mode=0o700, exist_ok=True)
            self.mounts.chmod(0o700)  # an image's files are not for the host's users
            target.mkdir(exist_ok=True)
            disk.mount_squashfs(file, offset, length, target)
        if self.mapped is None:
            self.mapped = can_map(target)
        return target if self.mapped else await self._unpack(target)

    def adopt(self, file: Path, user: str) -> None:
        """Note that a living instance uses the image."""
        self._use(file.stem, user)

    def _use(self, key: str, user: str) -> None:
        self._users.setdefault(key, set()).add(user)
        if timer := self._idle.pop(key, None):
            timer.cancel()

    def release(self, user: str) -> None:
        """The instance needs its image no more. The mount stays for KEPT after the last one, and
        with it what was read and decompressed of the image."""
        for key, users in list(self._users.items()):
            users.discard(user)
            if not users and key not in self._idle:
                loop = asyncio.get_running_loop()
                self._idle[key] = loop.call_later(KEPT, self._unmount, key)

    def drop(self, key: str) -> None:
        """Unmount the image and remove what was unpacked of it. Idempotent."""
        self._unmount(key)
        self._unpacking.pop(key, None)
        shutil.rmtree(self.unpacked / key, ignore_errors=True)

    def unused(self, images: Collection[str]) -> list[str]:
        """Keys of mounts that no instance uses, and of copies whose image is not in `images`."""
        mounted, copies = set(files.entries(self.mounts)), set(files.entries(self.unpacked))
        under_way = {key + _PARTIAL for key, lock in self._unpacking.items() if lock.locked()}
        return sorted((mounted | copies.difference(images, under_way)) - set(self._users))

    def _unmount(self, key: str) -> None:
        self._users.pop(key, None)
        if timer := self._idle.pop(key, None):
            timer.cancel()
        target = self.mounts / key
        mount.unmount(str(target))
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()

    async def _unpack(self, mounted: Path) -> Path:
        target = self.unpacked / mounted.name
        async with self._unpacking.setdefault(mounted.name, asyncio.Lock()):
            if not target.exists():
                partial = self.unpacked / f"{mounted.name}{_PARTIAL}"
                shutil.rmtree(partial, ignore_errors=True)
                self.unpacked.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    await run.run(["cp", "--archive", "--reflink=auto", str(mounted), str(partial)])
                    await run.run(["sync", "--file-system", str(partial)])
                    partial.rename(target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        return target


def can_map(directory: Path) -> bool:
    """Whether the mount at `directory` can be id-mapped (mount_setattr(2))."""
    with tempfile.TemporaryDirectory() as temporary:
        user, target = Path(temporary) / "user", Path(temporary) / "target"
        target.mkdir()
        namespaces.create(user, None, 1 << 20)
        try:
            mount.bind_idmapped(str(directory), str(target), str(user))
            linux.umount(str(target))
            return True
        except OSError:
            return False
        finally:
            linux.umount(str(user))
