"""Copies of what an instance has written: its layer, and its volumes without a name.

Each of them is a part, stored in a directory that holds either a tree of files or the file of
a limited disk. A running instance is copied as it is at one moment, in which it is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sublet.drivers import disk, files, linux, reflink, run
from sublet.drivers.descriptors import DIRECTORY, opened
from sublet.drivers.pool import clone

_IMAGE, _NEW, _OLD, _READY = "disk.img", "new", "old", "rollback"
_NOTHING = "nothing"
"""Stands for a part that was not there yet when the snapshot was taken."""


@dataclass(frozen=True, slots=True)
class Part:
    """`stored` holds the directory `tree`, or `disk.img`; `point` is where that is mounted while
    it is in use."""

    name: str
    stored: Path
    tree: str
    point: Path

    @property
    def image(self) -> Path:
        return self.stored / _IMAGE

    @property
    def content(self) -> Path:
        """What is copied, and replaced by a rollback."""
        return self.image if self.image.exists() else self.stored / self.tree


async def copy(pairs: Sequence[tuple[Part, Path]], pause: reflink.Pause | None) -> None:
    """Copy parts into directories. `pause` stops their writers; None: there are none.

    What is there is complete only when this returns. Raises DiskFull, ProcessFailed.
    """
    trees, images = [], []
    for part, target in pairs:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if part.image.exists():
            images.append((part, target / _IMAGE))
        elif part.content.exists():
            trees.append((part.content, target / part.tree))
    if pause is None:
        for source, target in trees:
            await reflink.copy(source, target)
        await _copy_images(images)
        return
    for part, _ in images:
        if os.path.ismount(part.point):  # what is written now need not be written in the pause
            await run.run(["sync", "--file-system", str(part.point)])
    await reflink.copy_in_use(trees, pause, lambda: _copy_images(images))


async def _copy_images(images: Iterable[tuple[Part, Path]]) -> None:
    for part, target in images:
        with disk.frozen(part.point) if os.path.ismount(part.point) else contextlib.nullcontext():
            if not await asyncio.to_thread(_clone, part.image, target):
                await run.run(["cp", "--sparse=always", "--", str(part.image), str(target)])


def _clone(source: Path, target: Path) -> bool:
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        if clone(reader.fileno(), writer.fileno()):
            return True
    target.unlink()
    return False


# Rolling back: what is to come is prepared beside what is there. Once all of it is, a mark
# says so, and from then on it is carried through, by the next daemon if need be.


async def prepare(pairs: Sequence[tuple[Part, Path]]) -> None:
    """Copy kept parts beside those that they are to replace: these lie in the given directories."""
    await copy([(part, own / _NEW) for part, own in pairs], None)
    for _, own in pairs:
        if not os.listdir(own / _NEW):
            (own / _NEW / _NOTHING).touch()


def mark_ready(parts: Sequence[Part]) -> None:
    """All is prepared: from here on the rollback happens, whatever else does."""
    for part in parts:
        _sync(part.stored)
    (parts[0].stored / _READY).touch(mode=0o600)
    _sync(parts[0].stored)


def is_ready(parts: Sequence[Part]) -> bool:
    """Whether a rollback was to happen and has not been finished."""
    return (parts[0].stored / _READY).exists()


async def replace(parts: Sequence[Part]) -> None:
    """Put what is prepared into its place. Idempotent: what is in its place already stays."""
    for part in parts:
        new, old = part.stored / _NEW, part.stored / _OLD
        entries = os.listdir(new) if new.exists() else []
        for name in entries:
            await files.remove(old)
            if part.content.exists():
                part.content.rename(old)
            if name == _NOTHING:
                (new / name).unlink()
            else:
                (new / name).rename(part.stored / name)
        _sync(part.stored)
    (parts[0].stored / _READY).unlink(missing_ok=True)
    await forget(parts)


async def forget(parts: Sequence[Part]) -> None:
    """Remove what is prepared for a rollback that does not happen, and what one has replaced."""
    for part in parts:
        for name in (_NEW, _OLD):
            await files.remove(part.stored / name)


def _sync(directory: Path) -> None:
    with opened(directory, DIRECTORY) as fd:
        linux.syncfs(fd)
