"""Where a backup is put together, and where one is restored: `<pool>/backups/ID`.

It holds what restic reads or writes: `manifest.json`, `layer` and `volumes/0`, `volumes/1`…, each
with a tree of files (`upper`, `data`) or the packed disk of a VM. The disk of a container is shown
by its files: the clone of it, `images/layer.img`, is mounted at `layer` while restic is at work.
No file system that a repository gave back is mounted ever: it gives back files only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sublet.domain.errors import Busy, InvalidArgument
from sublet.drivers import disk, files, limited, linux, mount, packed, run
from sublet.drivers.descriptors import DIRECTORY, opened

MANIFEST = "manifest.json"
_TICK = 0.01
"""Seconds by which a file's times may lag behind the clock: they come from the kernel's tick."""

_LETTING_GO = 30.0
"""Seconds that the kernel may take to free a loop device."""


def tree_of(place: str) -> str:
    """What holds the files at a place."""
    return "upper" if place == "layer" else "data"


class Stage:
    """One directory, which only root can reach."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def place(self, name: str) -> Path:
        """The directory of a part."""
        return self.directory / name

    def image(self, name: str) -> Path:
        """The file of a part that is a limited disk."""
        return self.directory / "images" / f"{name.replace('/', '-')}.img"

    def make(self, names: Sequence[str]) -> None:
        """Make it, with a directory for each part."""
        for name in names:
            self.place(name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "images").mkdir(mode=0o700, exist_ok=True)

    def write(self, text: bytes) -> None:
        """Write the manifest: it is there after a power cut, as the row is that tells of it."""
        with (self.directory / MANIFEST).open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        files.sync(self.directory)

    @property
    def parent(self) -> str:
        """The id of the earlier backup that this one leans on, if any."""
        try:
            return (self.directory / "parent").read_text()
        except FileNotFoundError:
            return ""

    @parent.setter
    def parent(self, backup_id: str) -> None:
        (self.directory / "parent").write_text(backup_id)

    async def settle(self, name: str, *, vm: bool) -> str:
        """Make a part that has been copied into what is sent: its kind."""
        image = self.place(name) / "disk.img"
        if image.exists() and vm:
            await asyncio.to_thread(packed.pack, image)
            return "disk"
        if image.exists():
            image.rename(self.image(name))
            return "files"
        return "files" if (self.place(name) / tree_of(name)).exists() else "nothing"

    @asynccontextmanager
    async def shown(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Meanwhile the files of limited disks are at their places."""
        try:
            for name in names:
                if self.image(name).exists() and not os.path.ismount(self.place(name)):
                    await limited.mount(self.image(name), self.place(name))
            yield
        finally:
            await asyncio.shield(self._hidden(names))

    async def _hidden(self, names: Sequence[str]) -> None:
        """Unmount, and wait until no cage has the mounts any more: a disk must not be mounted
        twice, and what was written is to be in its file."""
        for name in names:
            if os.path.ismount(self.place(name)):
                await asyncio.to_thread(_write_back, self.place(name))
        self.hide()
        until = time.monotonic() + _LETTING_GO
        for _ in iter(lambda: disk.loops(self.directory / "images") != {}, False):
            if time.monotonic() > until:
                raise Busy(f"The kernel does not let go of the disks in {self.directory}.")
            await asyncio.sleep(0.01)

    def hide(self) -> None:
        """Unmount what is mounted here. Idempotent."""
        mount.unmount_below(self.directory)

    def wanted(self, name: str, path: str) -> str | None:
        """What restic is to read for a path in a part: it, from the stage on; None where nothing
        was written there. Raises InvalidArgument where the path leads through a link."""
        place = self.place(name) / tree_of(name)
        for step in filter(None, path.split("/")):
            if not place.is_dir() or place.is_symlink():
                return None
            place /= step
            if not os.path.lexists(place):
                return None
            if place.is_symlink():
                raise InvalidArgument(
                    f"'{path}' leads through a link.", hint="Give the path that it points to."
                )
        return str(place.relative_to(self.directory))

    async def changed_unnoticed(self, trees: Sequence[Path], since: float) -> bool:
        """Whether any file has changed since then and has a time from before: restic, which looks
        at that, would not read it again. Whoever may write a file may set its time, never that of
        its last change."""
        if not (found := [str(tree) for tree in trees if tree.exists()]):
            return False
        when = ["-newerct", f"@{since - _TICK:.6f}", "!", "-newermt", f"@{since + _TICK:.6f}"]
        argv = ["find", *found, "-type", "f", *when, "-print", "-quit"]
        return bool((await run.run(argv, check=False)).stdout)

    async def remove(self) -> None:
        """Remove all of it. Idempotent."""
        self.hide()
        await files.remove(self.directory)


def _write_back(mounted: Path) -> None:
    with opened(mounted, DIRECTORY) as fd:
        linux.syncfs(fd)
