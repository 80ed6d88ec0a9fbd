"""Volumes on the disk: `volumes/<id>/data`, or `disk.img` where they are limited.

Named ones are below ROOT, on the host's own file system, as plain as can be. Those without a
name are copied with their instance by `fork` and are therefore in the pool. Ids are stored
as seen inside, 0 for root: instances with different ids on the host share a volume through
id-mapped mounts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sublet.domain.leftover import Leftover
from sublet.domain.volumes import Volume
from sublet.drivers import files, limited, linux, mount, reflink, usage
from sublet.drivers.pool import Pool


class VolumeFiles:
    """The volumes of one daemon; limited ones are mounted below `mounts` while they are used."""

    def __init__(self, pool: Pool, mounts: Path) -> None:
        self.pool = pool
        self.mounts = mounts / "volumes"
        self._users: dict[str, set[str]] = {}

    def directory(self, volume: Volume) -> Path:
        """What holds the volume and nothing else."""
        return self._base(volume.anonymous) / volume.id

    def _base(self, anonymous: bool) -> Path:
        return (self.pool.directory if anonymous else self.pool.root) / "volumes"

    def image(self, volume: Volume) -> Path:
        """The file of a limited volume, or of one that is the disk of VMs."""
        return self.directory(volume) / "disk.img"

    def data(self, volume: Volume) -> Path:
        """The directory that instances see, while the volume is held."""
        return (self.mounts / volume.id if volume.size else self.directory(volume)) / "data"

    async def hold(self, volume: Volume, user: str) -> Path:
        """Make the volume, unless it is there, and mount what it needs; its data. Idempotent."""
        self._users.setdefault(volume.id, set()).add(user)
        directory = self.directory(volume)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if volume.size:
            point, image = self.mounts / volume.id, self.image(volume)
            if not image.exists():
                await limited.create(image, volume.size)
            if not os.path.ismount(point):
                point.mkdir(mode=0o700, parents=True, exist_ok=True)
                await limited.mount(image, point)
        data = self.data(volume)
        data.mkdir(mode=0o755, exist_ok=True)
        return data

    def reserve(self, volume: Volume, user: str) -> Path:
        """The directory of a volume that the host does not mount; the user has it. Idempotent."""
        self._users.setdefault(volume.id, set()).add(user)
        directory = self.directory(volume)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def empty(self, volume: Volume) -> bool:
        """Whether nobody has put anything into an unlimited volume."""
        data = self.directory(volume) / "data"
        return not data.exists() or not any(os.scandir(data))

    def held(self, volume: Volume) -> bool:
        """Whether anybody uses it now."""
        return bool(self._users.get(volume.id))

    def users(self, volume: Volume) -> frozenset[str]:
        """Who has it now."""
        return frozenset(self._users.get(volume.id, ()))

    def adopt(self, volume: Volume, user: str) -> None:
        """Note that a living instance uses the volume."""
        self._users.setdefault(volume.id, set()).add(user)

    def release(self, user: str) -> None:
        """The user needs its volumes no more; the last one takes the mount with it."""
        for key, users in list(self._users.items()):
            users.discard(user)
            if not users:
                del self._users[key]
                self._unmount(key)

    def _unmount(self, key: str) -> None:
        point = self.mounts / key
        mount.unmount(str(point))
        with contextlib.suppress(FileNotFoundError):
            point.rmdir()

    async def fill(self, volume: Volume, image: Path, place: str) -> None:
        """Give an empty volume, which nobody else uses, what the image (at `image`) has at `place`.

        Whole or not at all. Links of the image are resolved inside it. Raises DiskFull.
        """
        data = self.data(volume)
        if len(self._users.get(volume.id, ())) > 1 or any(os.scandir(data)):
            return
        with contextlib.ExitStack() as stack:
            root = os.open(image, os.O_PATH | os.O_DIRECTORY)
            stack.callback(os.close, root)
            try:
                source = linux.openat2(root, place, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                return  # nothing there, or no directory
            stack.callback(os.close, source)
            await files.remove(fresh := data.with_name("fresh"))
            try:
                await reflink.copy(source, fresh)
                fresh.rename(data)
            finally:
                await files.remove(fresh)

    def size(self, volume: Volume) -> int:
        """Bytes that it takes on the disk. Slow for many files; not for the event loop."""
        return usage.allocated(self.directory(volume))

    async def remove(self, volume: Volume) -> None:
        """Delete the volume and all that is in it. Idempotent."""
        self._users.pop(volume.id, None)
        self._unmount(volume.id)
        await files.remove(self.directory(volume))

    def leftovers(self, known: set[str]) -> list[Leftover]:
        """Directories of volumes that do not exist, and mounts of those that nobody uses."""
        found = []
        for directory in {self._base(True), self._base(False)}:
            strays = sorted(set(files.entries(directory)) - known)
            found += [Leftover("volume", str(directory / name)) for name in strays]
        idle = sorted(set(files.entries(self.mounts)) - set(self._users))
        return found + [Leftover("mount", str(self.mounts / name)) for name in idle]

    async def clean(self, known: set[str]) -> None:
        """Remove what `leftovers` finds."""
        for leftover in self.leftovers(known):
            path = Path(leftover.name)
            if leftover.kind == "mount":
                self._unmount(path.name)
            else:
                await files.remove(path)
