"""Restores: new instances with the files and the configuration that backups hold.

What a repository gives back is written into a stage, by a restic that reaches nothing else, and
looked at there before an instance gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import replace
from pathlib import Path

from sublet.domain.backup import Backup, Manifest, foreign
from sublet.domain.capacity import Amount
from sublet.domain.errors import (
    InsufficientCapacity,
    PriceTooLow,
    SubletError,
    UntrustedBackup,
)
from sublet.domain.instance import Instance, State
from sublet.domain.progress import Report, silent
from sublet.domain.volumes import Volume
from sublet.drivers import limited
from sublet.engine import placing, seeds, staging
from sublet.engine.backups import Backups
from sublet.engine.holdings import amount_of
from sublet.engine.images import Images
from sublet.engine.restore_plans import Plan, RestorePlans


class Restores:
    """Makes instances of backups."""

    def __init__(self, backups: Backups, images: Images) -> None:
        self._backups, self._plans = backups, RestorePlans(backups.lifecycle, images)
        self.instances, self.lifecycle = backups.instances, backups.lifecycle
        self.parts, self.market = backups.parts, backups.instances.market

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
        wait: bool = True,
        report: Report = silent,
    ) -> Instance:
        """A new instance with what a backup holds, of `size`, under a name of its own; `vm` makes a
        VM of a container. It runs if the first one did, unless `start` says otherwise. For its room
        it waits as `Instances.run` does, and a persistent spot instance that gets none yet is
        started when there is.

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
            plan = await self._plans.plan(manifest, stage, name or manifest.name, size, vm, report)
            running = manifest.running if start is None else start
            lacks = await self._lacks(plan, wait, report) if running else None
            running = running and lacks is None
            instance = await self._begun(backup, plan, running, report)
            made = await self._make(instance, plan, backup)
            if lacks:
                self.market.requests.lacks(made.id, lacks)
            return made
        finally:
            await self.lifecycle.anyway(stage.remove())
            self._backups.release(stage_name)

    async def _lacks(self, plan: Plan, wait: bool, report: Report) -> SubletError | None:
        """Return when there is room for it, before much is fetched; or what a persistent spot
        instance has to wait for. Raises as a start does."""
        self.lifecycle.permit(plan.spec, "")
        try:
            await self.market.admit(plan.spec, wait=wait, report=report)
        except (InsufficientCapacity, PriceTooLow) as error:
            if self.market.postpones(plan.spec):
                return error
            error.hint = "`sublet restore --no-start` restores it without starting it."
            raise
        return None

    async def _begun(self, backup: Backup, plan: Plan, running: bool, report: Report) -> Instance:
        """The row, when all that it gets is here; the room of one that is to run is kept for it
        meanwhile."""
        amount = amount_of(plan.spec) if running else Amount()
        with self.market.claims.kept(plan.stage.directory, amount):
            await self._fetch(backup, plan, report)
            spec, digest = replace(plan.spec, user_data=""), plan.image.digest
            return self.instances.add_fork(spec, digest, running=running, admitted=True)

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

    # Fetching

    async def _fetch(self, backup: Backup, plan: Plan, report: Report) -> None:
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
            await repository.restore(backup.snapshot, stage.directory, own=("images",))
            for piece in manifest.pieces:
                await asyncio.to_thread(placing.check, stage, piece)

    # Making

    async def _make(self, instance: Instance, plan: Plan, backup: Backup) -> Instance:
        made: list[Volume] = []
        try:
            async with self.lifecycle.locks.hold(instance.id, "restore"):
                seeds.give(self.parts.config.root, instance.id, plan.spec.user_data)
                for piece in plan.manifest.pieces:
                    volume = plan.volumes.get(piece.place)
                    if volume:
                        self.parts.volume_store.add(volume)
                        made.append(volume)
                    await placing.place(plan, piece, self._target(instance, volume))
            instance = replace(self.lifecycle.current(instance), kept=True)
            self.parts.store.update(instance)
        except BaseException:
            await self.lifecycle.anyway(self._undo(instance, made))
            raise
        self.lifecycle.tell("restored", instance, backup=backup.id)
        if instance.wanted:
            await self._launch(instance)
        else:
            self.lifecycle.move(instance, State.STOPPED)
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
