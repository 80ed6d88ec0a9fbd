"""Restores: new instances with the files and the configuration that backups hold.

What a repository gives back is written into a stage, by a restic that reaches nothing else, and
looked at there before an instance gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from sublet.domain.backup import Backup, Manifest, Piece, foreign, published, restored
from sublet.domain.errors import (
    BackupFailed,
    InsufficientCapacity,
    NameInUse,
    NoSuchImage,
    SubletError,
    UntrustedBackup,
)
from sublet.domain.image import Image
from sublet.domain.instance import Instance, State
from sublet.domain.machine import DEFAULT_DISK
from sublet.domain.size import check_disk
from sublet.domain.spec import InstanceSpec
from sublet.domain.subnets import FIRST_ID
from sublet.domain.volumes import Volume
from sublet.drivers import diskimage, files, limited, packed, reflink, screening
from sublet.drivers.namespaces import ID_COUNT
from sublet.drivers.stage import Stage, tree_of
from sublet.drivers.vm import disks
from sublet.engine import seeds, staging
from sublet.engine.backups import Backups
from sublet.engine.images import Images
from sublet.engine.sending import Report, silent


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a restore makes: of this, an instance that asks for `spec`, of an image; `volumes` by
    their places."""

    manifest: Manifest
    spec: InstanceSpec
    image: Image
    volumes: dict[str, Volume]
    stage: Stage

    @property
    def converts(self) -> bool:
        """Whether a container's files become the disks of a VM."""
        return self.spec.vm and not self.manifest.spec.vm

    def limit(self, piece: Piece) -> int:
        """Bytes of the disk that a part gets, 0: none."""
        volume = self.volumes.get(piece.place)
        if self.spec.vm:
            return (volume.size if volume else self.spec.disk) or DEFAULT_DISK
        return volume.size if volume else self.spec.disk


class Restores:
    """Makes instances of backups."""

    def __init__(self, backups: Backups, images: Images) -> None:
        self._backups, self._images = backups, images
        self.instances, self.lifecycle = backups.instances, backups.lifecycle
        self.parts = backups.parts

    async def restore(
        self,
        text: str,
        repository: str = "",
        *,
        name: str = "",
        size: str = "",
        vm: bool = False,
        start: bool | None = None,
        trust: bool = False,
        report: Report = silent,
    ) -> Instance:
        """A new instance with what a backup holds, of `size`, under a name of its own; `vm` makes a
        VM of a container. It runs if the first one did, unless `start` says otherwise.

        Raises NoSuchBackup, BackupIncomplete, NameInUse, NoSuchImage, UntrustedBackup and the like.
        """
        backup = await self._backups.get(text, repository)
        backup = await self._backups.sending.complete(backup, report)
        manifest = await self._manifest(backup, trust=trust)
        vm = vm or manifest.spec.vm
        stage_name = f"restore-{secrets.token_hex(6)}"
        self._backups.hold(stage_name)
        stage = self._backups.staging.stage(stage_name)
        try:
            plan = await self._plan(manifest, stage, name or manifest.name, size, vm, report)
            running = manifest.running if start is None else start
            if running:
                self._admit(plan.spec)
            await self._fetch(backup, plan, report)
            return await self._make(plan, backup, running=running)
        finally:
            await self.lifecycle.anyway(stage.remove())
            self._backups.release(stage_name)

    def _admit(self, spec: InstanceSpec) -> None:
        """Raises InsufficientCapacity before much is fetched."""
        try:
            self.instances.market.admit_now(spec)
        except InsufficientCapacity as error:
            error.hint = "`sublet restore --no-start` restores it without starting it."
            raise

    async def _manifest(self, backup: Backup, *, trust: bool) -> Manifest:
        repository = self._backups.repositories.at(backup.repository)
        text = await repository.read(backup.snapshot, "/manifest.json", staging.MOST)
        manifest, own = staging.load(text), self._backups.store.get(backup.id)
        found = foreign(manifest, {volume.name for volume in self.parts.volume_store.all()})
        ours = own and own.manifest == hashlib.sha256(text).hexdigest()
        if found and not (trust or ours):
            raise UntrustedBackup(
                f"This host has not made the backup, and it asks for more than its own: "
                f"{'; '.join(found)}."
            )
        return manifest

    # Planning

    async def _plan(
        self, manifest: Manifest, stage: Stage, name: str, size: str, vm: bool, report: Report
    ) -> _Plan:
        if any(row.name == name for row in self.parts.store.all()):
            raise NameInUse(
                f"The name '{name}' is in use.", hint="Restore it under another one: --as NAME."
            )
        image = await self._image(manifest, report)
        volumes = {
            piece.place: self._volume(piece.volume, vm=vm)
            for piece in manifest.pieces
            if piece.volume
        }
        names = {p.volume.name: volumes[p.place].name for p in manifest.pieces if p.volume}
        spec = restored(manifest, name, vm=vm, volumes=names)
        rows = self.parts.store.all()
        taken = {(port.host_port, port.protocol) for row in rows for port in row.spec.ports}
        spec = replace(spec, ports=published(spec.ports, taken))
        if size:
            wanted = self.parts.config.size_of(size)
            spec = replace(spec, cpus=wanted.cpus, memory=wanted.memory)
        return _Plan(manifest, spec, image, volumes, stage)

    def _volume(self, old: Volume, *, vm: bool) -> Volume:
        """The volume that takes the place of one: under its name, where that is free."""
        new = self.lifecycle.volumes.twin(old)
        if not old.anonymous and self.parts.volume_store.get(old.name) is None:
            new = replace(new, name=old.name)
        size = check_disk(new.size) if new.size else 0
        return replace(new, raw=vm, size=(size or DEFAULT_DISK) if vm else size)

    async def _image(self, manifest: Manifest, report: Report) -> Image:
        """The image of the instance, fetched where it is not here. Raises NoSuchImage."""
        if here := self._images.local(manifest.digest):
            return here
        try:
            image = await self._images.ensure(manifest.image, report=report)
        except SubletError as error:
            raise NoSuchImage(
                f"The image {manifest.image} of the backup is not on this host and cannot be "
                f"fetched: {error.message}",
                hint="Bring it here first: `sublet pull`, `sublet import`, or `sublet build`.",
            ) from error
        if image.config.disk and image.digest != manifest.digest:
            raise NoSuchImage(
                f"{manifest.image} is another disk here than the one that was backed up, whose "
                "changes alone are in the backup.",
                hint=f"Import the one with the digest {manifest.digest}.",
            )
        report(f"{manifest.image} is another build here than the one that was backed up")
        return image

    # Fetching

    async def _fetch(self, backup: Backup, plan: _Plan, report: Report) -> None:
        """Let the stage have all that the backup holds. Raises BackupFailed, UntrustedBackup."""
        stage, manifest = plan.stage, plan.manifest
        places = [piece.place for piece in manifest.pieces]
        stage.make(places)
        for piece in manifest.pieces:
            limit = plan.limit(piece)
            if piece.kind == "files" and limit and not plan.spec.vm:
                await limited.create(stage.image(piece.place), limit)
        async with stage.shown(places):
            report(f"Fetching the files of {manifest.name}")
            repository = self._backups.repositories.at(backup.repository)
            await repository.restore(backup.snapshot, stage.directory)
            for piece in manifest.pieces:
                if piece.kind == "files":
                    await asyncio.to_thread(_check, stage, piece)

    # Making

    async def _make(self, plan: _Plan, backup: Backup, *, running: bool) -> Instance:
        user_data, spec = plan.spec.user_data, replace(plan.spec, user_data="")
        instance = self.instances.add_fork(spec, plan.image.digest, running=running)
        made: list[Volume] = []
        try:
            async with self.lifecycle.locks.hold(instance.id, "restore"):
                seeds.give(self.parts.config.root, instance.id, user_data)
                for piece in plan.manifest.pieces:
                    volume = plan.volumes.get(piece.place)
                    if volume:
                        self.parts.volume_store.add(volume)
                        made.append(volume)
                    await self._place(plan, piece, self._target(instance, volume))
            instance = replace(self.lifecycle.current(instance), kept=True)
            self.parts.store.update(instance)
        except BaseException:
            await self.lifecycle.anyway(self._undo(instance, made))
            raise
        self.lifecycle.tell("restored", instance, backup=backup.id)
        if running:
            await self._launch(instance)
        else:
            self.lifecycle.move(replace(instance, wanted=False), State.STOPPED)
        return self.parts.store.get(instance.id) or instance

    async def _launch(self, instance: Instance) -> None:
        try:
            await self.lifecycle.launch(instance)
        except SubletError as error:
            error.message = f"{instance.name} is restored but does not start: {error.message}"
            raise

    async def _undo(self, instance: Instance, made: list[Volume]) -> None:
        await self.lifecycle.remove(instance, volumes=True)
        for volume in made:
            if self.parts.volume_store.get(volume.name):
                await self.parts.volumes.remove(volume)
                self.parts.volume_store.delete(volume.name)

    def _target(self, instance: Instance, volume: Volume | None) -> Path:
        if volume:
            return self.parts.volumes.directory(volume)
        if instance.spec.vm:
            return self.parts.machines.disks.path(instance.id).parent
        return self.parts.containers.writable.layer(instance.id).directory

    async def _place(self, plan: _Plan, piece: Piece, target: Path) -> None:
        """Give a part what the stage has for it."""
        stage, place = plan.stage, plan.stage.place(piece.place)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if piece.kind == "disk":
            disk = stage.image(piece.place)
            await asyncio.to_thread(packed.unpack, place, disk)
            if plan.image.config.disk and piece.place == "layer":
                diskimage.virtual_size(disk)  # raises where it leans on another file
            await _move(disk, target / "disk.img")
        elif piece.kind == "files" and plan.converts:
            disk = stage.image(piece.place)
            await self._convert(plan, piece, disk)
            await _move(disk, target / "disk.img")
        elif piece.kind == "files" and stage.image(piece.place).exists():
            await _move(stage.image(piece.place), target / "disk.img")
        elif piece.kind == "files":
            tree = tree_of(piece.place)
            if (place / tree).exists():
                await _move(place / tree, target / tree)

    async def _convert(self, plan: _Plan, piece: Piece, disk: Path) -> None:
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


def _check(stage: Stage, piece: Piece) -> None:
    """Raises UntrustedBackup for files that cannot be an instance's."""
    tree = stage.place(piece.place) / tree_of(piece.place)
    if not os.path.lexists(tree):
        return  # only some paths were backed up
    if tree.is_symlink() or not tree.is_dir():
        raise UntrustedBackup("The backup has a file where its files should be.", hint="")
    if piece.place == "layer":
        base = _base(tree)
        screening.screen(tree, range(base, base + ID_COUNT), host_root=True)
    else:
        screening.screen(tree, range(1 << 32), host_root=True)


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
