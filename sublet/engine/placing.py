"""Giving an instance what a stage has for it, once that has been looked at."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sublet.domain.backup import Piece
from sublet.domain.errors import BackupFailed, SubletError, UntrustedBackup
from sublet.domain.subnets import FIRST_ID
from sublet.drivers import diskimage, files, packed, reflink, screening
from sublet.drivers.namespaces import ID_COUNT
from sublet.drivers.stage import Stage, tree_of
from sublet.drivers.vm import disks
from sublet.engine.restore_plans import Plan


def check(stage: Stage, piece: Piece) -> None:
    """Raises UntrustedBackup for files that cannot be an instance's."""
    if piece.kind == "nothing":
        return
    place = stage.place(piece.place)
    tree = place / tree_of(piece.place)
    steps = [place, *place.parents]
    for step in steps[: steps.index(stage.directory)]:
        _directory(step)  # a link in its place leads to what is not in the backup
    if piece.kind == "disk" or not os.path.lexists(tree):
        return  # only some paths were backed up; a disk is looked at when it is unpacked
    _directory(tree)
    if piece.place == "layer":
        base = _base(tree)
        screening.screen(tree, range(base, base + ID_COUNT), host_root=True)
    else:
        screening.screen(tree, range(1 << 32), host_root=True)


def _directory(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise UntrustedBackup("The backup has a file where its files should be.", hint="")


async def place(plan: Plan, piece: Piece, target: Path) -> None:
    """Give a part what the stage has for it."""
    stage, source = plan.stage, plan.stage.place(piece.place)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if piece.kind == "disk":
        disk = stage.image(piece.place)
        await asyncio.to_thread(packed.unpack, source, disk)
        if plan.image.config.disk and piece.place == "layer":
            diskimage.virtual_size(disk)  # raises where it leans on another file
        await _move(disk, target / "disk.img")
    elif piece.kind == "files" and plan.converts:
        disk = stage.image(piece.place)
        await _convert(plan, piece, disk)
        await _move(disk, target / "disk.img")
    elif piece.kind == "files" and stage.image(piece.place).exists():
        await _move(stage.image(piece.place), target / "disk.img")
    elif piece.kind == "files":
        tree = tree_of(piece.place)
        if (source / tree).exists():
            await _move(source / tree, target / tree)


async def _convert(plan: Plan, piece: Piece, disk: Path) -> None:
    """Make the disk of a VM with the files of a container."""
    place = plan.stage.place(piece.place)
    tree = place / tree_of(piece.place)
    tree.mkdir(mode=0o755, exist_ok=True)
    if piece.place == "layer":
        await asyncio.to_thread(screening.shift, tree, _base(tree), ID_COUNT)
        (place / "work").mkdir(mode=0o755, exist_ok=True)
    try:
        await disks.of_tree(disk, plan.limit(piece), place)
    except SubletError as error:
        raise BackupFailed(
            f"The files of {plan.manifest.name} cannot be put on a disk: {error.message}",
            hint="Where they do not fit, restore without --vm.",
        ) from error


def _base(tree: Path) -> int:
    """The first user id of the instance that a layer was made for; its root is somebody there."""
    owner = tree.stat().st_uid
    base = owner - (owner - FIRST_ID) % ID_COUNT
    if base < FIRST_ID:
        raise UntrustedBackup(f"The files in the backup belong to user {owner}.", hint="")
    return base


async def _move(source: Path, target: Path) -> None:
    """Move a file or a tree, to another file system if need be; `target` is new."""
    if source.stat().st_dev == target.parent.stat().st_dev:
        source.rename(target)
    elif source.is_dir():
        await reflink.copy(source, target)
    else:
        await asyncio.to_thread(reflink.copy_file, source, target)
    files.sync(target.parent)
