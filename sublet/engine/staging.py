"""What a backup is made of: a copy of an instance's files, put together beside them.

It shares its blocks with the files, so that the instance is paused for a moment only, and restic
may take as long as it takes. It goes when all of it has arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from sublet.domain.backup import Backup, Manifest, Piece, check_manifest, located
from sublet.domain.errors import BackupFailed, InvalidArgument
from sublet.domain.instance import LIVE, Instance
from sublet.domain.volumes import Volume
from sublet.drivers import usage
from sublet.drivers.copies import Part
from sublet.drivers.stage import MANIFEST, Stage, tree_of
from sublet.engine import seeds
from sublet.engine.contents import Contents
from sublet.engine.lifecycle import Lifecycle

_MANIFEST = TypeAdapter(Manifest)
MOST = 16 << 20
"""Bytes of a manifest at most."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an instance, the place of its copy, and the volume that it is."""

    place: str
    part: Part
    volume: Volume | None = None


def dump(manifest: Manifest) -> bytes:
    """The manifest as a file."""
    return _MANIFEST.dump_json(manifest)


def load(text: bytes) -> Manifest:
    """The manifest in a file; who wrote it may be a stranger. Raises BackupFailed,
    InvalidArgument."""
    try:
        manifest = _MANIFEST.validate_json(text)
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"]))
        raise BackupFailed(f"The backup's manifest is none: {place}: {what['msg']}.") from None
    check_manifest(manifest)
    return manifest


class Staging:
    """The stages of one daemon's backups."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle, self.parts = lifecycle, lifecycle.parts
        self._contents = Contents(lifecycle)

    def stage(self, name: str) -> Stage:
        """The stage of a backup, or of a restore."""
        return Stage(self.parts.containers.pool.directory / "staged" / name)

    def manifest(self, backup: Backup) -> Manifest:
        """What a staged backup says of itself."""
        return load((self.stage(backup.id).directory / MANIFEST).read_bytes())

    async def fill(
        self, backup: Backup, instance: Instance, paths: Sequence[str], parent: Backup | None
    ) -> tuple[Backup, float]:
        """Copy an instance, which may run, to the backup's stage: the backup with the moment of
        its files, and the seconds of the pause. Raises WrongState, DiskFull, InvalidArgument."""
        found, stage = self._found(instance), self.stage(backup.id)
        stage.make([each.place for each in found])
        moments: list[float] = []
        paused = await self._contents.copy(
            instance,
            [(each.part, stage.place(each.place)) for each in found],
            "backup",
            still=lambda: moments.append(time.time()),
        )
        backup = Backup(
            backup.id, backup.repository, instance.id, instance.name, moments[-1], backup.size
        )
        await self._note_parent(stage, found, instance, parent)
        pieces = [await self._piece(stage, each, instance) for each in found]
        manifest = self._describe(instance, backup, pieces, tuple(paths))
        text = dump(manifest)
        stage.write(text)
        return replace(backup, manifest=hashlib.sha256(text).hexdigest()), paused

    def _found(self, instance: Instance) -> list[_Part]:
        layer = _Part("layer", self._contents.parts_of(instance)[0])
        volumes = self.lifecycle.volumes.written(instance)
        return [layer] + [
            _Part(
                f"volumes/{number}",
                Part(
                    f"volumes/{number}",
                    self.parts.volumes.directory(volume),
                    "data",
                    self.parts.volumes.mounts / volume.id,
                ),
                volume,
            )
            for number, volume in enumerate(volumes)
        ]

    async def _note_parent(
        self, stage: Stage, found: Sequence[_Part], instance: Instance, parent: Backup | None
    ) -> None:
        """Write down on what earlier backup this one leans: on none where that may deceive."""
        trees = [each.part.stored / each.part.tree for each in found]
        shared = any(self._others(each.volume, instance) for each in found if each.volume)
        if parent and not shared and not await stage.changed_unnoticed(trees, parent.time):
            stage.parent = parent.id
        else:
            stage.parent = ""

    def _others(self, volume: Volume, instance: Instance) -> bool:
        """Whether somebody writes there who was not paused."""
        users = self.lifecycle.volumes.users(volume.name)
        return any(user.state in LIVE and user.id != instance.id for user in users)

    async def _piece(self, stage: Stage, part: _Part, instance: Instance) -> Piece:
        kind = await stage.settle(part.place, vm=instance.spec.vm)
        return Piece(part.place, kind, volume=part.volume)

    def _describe(
        self, instance: Instance, backup: Backup, pieces: Sequence[Piece], paths: tuple[str, ...]
    ) -> Manifest:
        return Manifest(
            instance=instance.id,
            name=instance.name,
            image=instance.image,
            digest=instance.digest,
            spec=instance.spec,
            time=backup.time,
            running=instance.state in LIVE,
            pieces=tuple(pieces),
            user_data=seeds.of(self.parts.config.root, instance.id),
            paths=paths,
        )

    def paths(self, stage: Stage, manifest: Manifest) -> list[str]:
        """What restic reads of a stage that is shown. Raises InvalidArgument."""
        found = [MANIFEST]
        if manifest.paths:
            points = _points(manifest)
            for path in manifest.paths:
                place, rest = located(path, points)
                wanted = stage.wanted(place, rest)
                found += [wanted] if wanted else []
            if len(found) == 1:
                raise InvalidArgument(
                    f"{manifest.name} has written nothing at {', '.join(manifest.paths)}.",
                    hint="`sublet diff` shows what it has written.",
                )
            return found
        for piece in manifest.pieces:
            if piece.kind == "files":
                found.append(f"{piece.place}/{tree_of(piece.place)}")
            elif piece.kind == "disk":
                found.append(piece.place)
        return found

    async def size(self, stage: Stage, paths: Sequence[str]) -> int:
        """Bytes of what is to be sent."""
        directories = [stage.directory / path for path in paths]
        return await asyncio.to_thread(usage.allocated, *directories)


def _points(manifest: Manifest) -> list[tuple[str, str]]:
    """Where in the instance its volumes are, and their places."""
    by_name = {piece.volume.name: piece.place for piece in manifest.pieces if piece.volume}
    mounts = manifest.spec.mounts
    return [(m.destination, by_name[m.source]) for m in mounts if m.source in by_name]
