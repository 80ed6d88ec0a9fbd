"""Verbs on backups: make, list, find, complete, remove, verify, prune.

The repository is the truth about what is complete. The rows of this host tell, beyond that, of
backups on their way: a row is there before the backup's stage, and the stage goes when all of it
has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sublet.domain.backup import Backup, inside, superfluous
from sublet.domain.errors import (
    BackupIncomplete,
    Busy,
    InvalidArgument,
    NoSuchBackup,
    NoSuchInstance,
    SubletError,
)
from sublet.domain.instance import Instance
from sublet.domain.leftover import Leftover
from sublet.domain.names import is_id
from sublet.domain.repositories import check_repository, is_local
from sublet.domain.retention import Keep
from sublet.domain.units import format_bytes
from sublet.drivers import files, mount
from sublet.drivers.restic import Account, Done, Repository
from sublet.drivers.stage import Stage
from sublet.drivers.store.backups import BackupStore
from sublet.engine import backup_records as records
from sublet.engine.snapshots import Snapshots
from sublet.engine.staging import Staging

log = logging.getLogger(__name__)

Report = Callable[[str], None]


def silent(_line: str) -> None:
    """A report that nobody reads."""


class Backups:
    """The backups of one daemon's instances, and what its repositories hold."""

    def __init__(self, snapshots: Snapshots, store: BackupStore) -> None:
        self.staging = Staging(snapshots)
        self.instances = snapshots.instances
        self.lifecycle, self.parts = snapshots.lifecycle, snapshots.parts
        self.store = store
        self._busy: set[str] = set()
        self._clearing: set[str] = set()

    # Looking

    def address(self, text: str) -> str:
        """The repository that is meant, the configured one where none is named."""
        return check_repository(text) if text else self.parts.config.repository

    def repository(self, address: str) -> Repository:
        """How it is opened."""
        root = self.parts.config.root
        password = self.parts.config.password_file
        return Repository(
            address,
            Account(password, root / "backup.env", root / "backup-cache", root / "backup.ssh"),
        )

    async def every(self, instance: str = "", repository: str = "") -> list[Backup]:
        """The backups in a repository, and those on their way to it, the newest first; an
        instance's, or all. Raises RepositoryUnavailable."""
        address = self.address(repository)
        there = {backup.id: backup for backup in await self._listed(address)}
        rows = [row for row in self.store.every() if row.id not in there]
        found = [*there.values()]
        found += [row for row in rows if row.repository == address and not row.complete]
        if not repository:
            found += [row for row in rows if row.repository != address]
        if instance:
            wanted = {instance, self._id(instance)}
            found = [b for b in found if wanted & {b.instance, b.name}]
        return sorted(found, key=lambda backup: (backup.time, backup.id), reverse=True)

    def _id(self, text: str) -> str:
        with contextlib.suppress(NoSuchInstance, InvalidArgument):
            return self.instances.get(text).id
        return text

    async def _listed(self, address: str) -> list[Backup]:
        """What is in a repository; nothing where there is none yet."""
        repository = self.repository(address)
        if is_local(address) and not repository.made:
            return []
        found = [records.of_tags(kept, address) for kept in await repository.snapshots()]
        return [backup for backup in found if is_id(backup.id)]

    async def get(self, text: str, repository: str = "") -> Backup:
        """The backup that an id, or its beginning, means. Raises NoSuchBackup."""
        rows = [] if repository else self.store.every()
        for known in (rows, None):
            if known is None:
                known = await self.every(repository=repository)
            exact = [backup for backup in known if backup.id == text]
            found = exact or [b for b in known if text and b.id.startswith(text)]
            if len(found) > 1:
                raise InvalidArgument(
                    f"'{text}' begins the ids of {len(found)} backups.", hint="Give more of the id."
                )
            if found:
                return found[0]
        raise NoSuchBackup(f"There is no backup '{text}'.")

    def last(self, instance_id: str) -> Backup | None:
        """The newest backup that this host has made, or begun, of an instance."""
        return next(iter(self.store.of(instance_id)), None)

    # Making

    async def create(
        self,
        text: str,
        repository: str = "",
        paths: Sequence[str] = (),
        *,
        keep: bool = False,
        report: Report = silent,
    ) -> Backup:
        """Back up what an instance has written, or of that what is at `paths`. One that runs is
        paused for a moment.

        With `keep`, what is cut off or fails stays on this host, to be completed; else it goes.
        Raises NoSuchInstance, RepositoryUnavailable, BackupFailed, DiskFull.
        """
        instance = self.instances.get(text)
        asked, address = inside(paths), self.address(repository)
        if asked and instance.spec.vm:
            raise InvalidArgument(
                f"{instance.name} is a VM: its disk is backed up as a whole.", hint="No --path."
            )
        async with self.lifecycle.locks.hold(f"backup {instance.id}", "backup"):
            backup = await self._stage(instance, address, asked, report)
            return await self._send(backup, keep=keep, report=report)

    async def _stage(
        self, instance: Instance, address: str, paths: Sequence[str], report: Report
    ) -> Backup:
        backup_id = secrets.token_hex(6)
        backup = Backup(backup_id, address, instance.id, instance.name, time.time())
        self._busy.add(backup.id)
        self.store.put(backup)
        self._tell("started", backup)
        report(f"Copying the files of {instance.name}")
        try:
            parent = self._parent(instance.id, address)
            backup, paused = await self.staging.fill(backup, instance, paths, parent)
            backup = replace(backup, staged=True, missing="all of it")
            self.store.put(backup)
        except BaseException as error:
            await self.lifecycle.anyway(self._drop(backup))
            self._tell("failed", backup, reason=records.why(error))
            raise
        finally:
            self._busy.discard(backup.id)
        self._tell("copied", backup, paused_ms=f"{paused * 1000:.1f}")
        return backup

    def _parent(self, instance_id: str, address: str) -> Backup | None:
        """The last backup, of an instance or any, that is complete in a repository."""
        rows = self.store.of(instance_id) if instance_id else self.store.every()
        return next((row for row in rows if row.complete and row.repository == address), None)

    async def _drop(self, backup: Backup) -> None:
        self.store.put(replace(backup, staged=False))
        await self.staging.stage(backup.id).remove()
        self.store.delete(backup.id)

    async def complete(self, backup: Backup, report: Report = silent) -> Backup:
        """Send what is missing of a backup whose stage is here. Raises BackupIncomplete."""
        if backup.complete:
            return backup
        if not backup.staged:
            raise BackupIncomplete(f"Of the backup {backup.id}, {backup.missing} is missing.")
        async with self.lifecycle.locks.hold(f"backup {backup.instance}", "backup"):
            current = self.store.get(backup.id)
            if current is None or current.complete:
                return current or backup
            return await self._send(current, keep=True, report=report)

    async def _send(self, backup: Backup, *, keep: bool, report: Report) -> Backup:
        """Send a stage. What of it is missing when this is cut off is in the row then."""
        told = [Done()]

        def progress(done: Done) -> None:
            if done.total_bytes:
                told[0] = done
                percent = 100 * done.bytes // done.total_bytes
                report(f"Sending {format_bytes(done.total_bytes)}: {percent} %")

        self._busy.add(backup.id)
        try:
            sent = await self._transfer(backup, progress)
        except BaseException as error:
            await self.lifecycle.anyway(self._cut_off(backup, told[0], error, keep=keep))
            raise
        finally:
            self._busy.discard(backup.id)
        self.store.put(sent)
        self._clearing.add(backup.id)
        self.parts.tasks.start(f"stage {backup.id}", self._clear(backup.id))
        self._tell("completed", sent, size=str(sent.size))
        return sent

    async def _clear(self, backup_id: str) -> None:
        """Remove the stage of a backup that is complete; nobody waits for that."""
        try:
            await self.staging.stage(backup_id).remove()
        finally:
            self._clearing.discard(backup_id)

    async def _transfer(self, backup: Backup, progress: Callable[[Done], None]) -> Backup:
        stage, manifest = self.staging.stage(backup.id), self.staging.manifest(backup)
        repository = self.repository(backup.repository)
        if is_local(backup.repository) or not self._parent("", backup.repository):
            async with self.lifecycle.locks.hold("repository", "its making"):
                await repository.prepare()
        await self._reindex(repository)
        tags = records.tags
        async with stage.shown([piece.place for piece in manifest.pieces]):
            paths = self.staging.paths(stage, manifest)
            backup = replace(backup, size=await self.staging.size(stage, paths))
            parent = await self._usable(stage, [piece.place for piece in manifest.pieces])
            try:
                snapshot = await repository.backup(
                    stage.directory,
                    paths,
                    tags=tags(backup),
                    parent=parent,
                    report=progress,
                )
            except NoSuchBackup:  # somebody has removed it
                snapshot = await repository.backup(
                    stage.directory, paths, tags=tags(backup), parent="", report=progress
                )
        return replace(backup, snapshot=snapshot, complete=True, staged=False, missing="")

    async def _usable(self, stage: Stage, places: Sequence[str]) -> str:
        """restic's id of the backup that the stage leans on; empty where that would deceive."""
        parent = self.store.get(stage.parent)
        disks = [stage.place(place) for place in places if stage.image(place).exists()]
        if parent is None or await stage.changed_unnoticed(disks, parent.time):
            return ""
        return parent.snapshot

    async def _cut_off(
        self, backup: Backup, done: Done, error: BaseException, *, keep: bool
    ) -> None:
        """Note what is missing, and that what has arrived is to be found again."""
        self.parts.store.set_setting(f"reindex {backup.repository}", "1")
        if not keep:
            await self._drop(backup)
            self._tell("failed", backup, reason=records.why(error))
            return
        backup = replace(backup, missing=records.missing(done), reason=records.why(error))
        self.store.put(backup)
        what = "incomplete" if isinstance(error, asyncio.CancelledError) else "failed"
        self._tell(what, backup, missing=backup.missing, reason=backup.reason)

    async def _reindex(self, repository: Repository) -> None:
        key = f"reindex {repository.address}"
        if self.parts.store.setting(key):
            with contextlib.suppress(SubletError):  # then it is sent again
                await repository.index()
                self.parts.store.set_setting(key, "")

    def missed(self, instance_id: str) -> None:
        """There was no time for a backup to begin."""
        row = self.parts.store.get(instance_id)
        about = {"name": row.name} if row else {}
        self.parts.events.publish("backup.incomplete", instance_id, missing="all of it", **about)

    def _tell(self, what: str, backup: Backup, **detail: str) -> None:
        about = {"backup": backup.id, "name": backup.name, **detail}
        self.parts.events.publish(f"backup.{what}", backup.instance, **about)

    # Removing

    async def remove(self, text: str, repository: str = "") -> None:
        """Delete a backup. What it took in the repository, `prune` gives back."""
        backup = await self.get(text, repository)
        if backup.id in self._busy:
            raise Busy(f"The backup {backup.id} is being made.")
        await self._remove([backup])

    async def _remove(self, backups: Sequence[Backup]) -> None:
        for address in {backup.repository for backup in backups}:
            gone = [b for b in backups if b.repository == address]
            snapshots = [backup.snapshot for backup in gone if backup.snapshot]
            repository = self.repository(address)
            if repository.made or not is_local(address):  # else it is gone, and they with it
                await repository.forget(snapshots)
            for backup in gone:
                await self._drop(backup)
                self._tell("removed", backup)

    async def prune(
        self, instance: str, keep: Keep, repository: str = "", *, dry: bool = False
    ) -> list[Backup]:
        """Delete what `keep` does not keep of the backups of an instance, or of each, and give
        back what no backup needs; what is deleted. `dry`: only tell."""
        keep.check()
        address = self.address(repository)
        everything = await self.every(instance, address)
        going = superfluous(everything, keep)
        if not dry:
            await self._remove(going)
            there = self.repository(address)
            if there.made or not is_local(address):
                await there.prune()
        return going

    async def thin(self, instance_id: str, keep: Keep) -> None:
        """Forget what a plan does not keep of an instance's backups; the room is `prune`'s."""
        address = self.address("")
        rows = [row for row in self.store.of(instance_id) if row.repository == address]
        await self._remove(superfluous(rows, keep))

    async def verify(self, repository: str = "", *, data: bool = False) -> None:
        """Check a repository, with `data` every byte of it. Raises BackupFailed."""
        await self.repository(self.address(repository)).check(data=data)

    # Recovery

    def recover(self) -> None:
        """Go on with what a daemon that ended had begun to send."""
        for row in self.store.every():
            if row.staged and not row.complete:
                self.parts.store.set_setting(f"reindex {row.repository}", "1")
                self.parts.tasks.start(f"backup {row.id}", self._again(row))

    async def _again(self, backup: Backup) -> None:
        try:
            await self.complete(backup)
        except (SubletError, OSError) as error:
            log.warning("the backup %s is not complete yet: %s", backup.id, error)

    def hold(self, name: str) -> None:
        """Somebody uses a stage."""
        self._busy.add(name)

    def release(self, name: str) -> None:
        self._busy.discard(name)

    def leftovers(self) -> list[Leftover]:
        """Stages that belong to no backup, and rows of backups that were never put together."""
        rows = self.store.every()
        place = self.staging.stage("").directory
        staged = {row.id for row in rows if row.staged} | self._busy | self._clearing
        broken = {row.id for row in rows if not (row.staged or row.complete)} - self._busy
        strays = set(files.entries(place)) - staged
        return [Leftover("backup", str(place / name)) for name in sorted(strays | broken)]

    async def clean(self) -> None:
        """Remove what `leftovers` finds, and mounts of stages that nobody works at."""
        for leftover in self.leftovers():
            name = leftover.name.rpartition("/")[2]
            await self.staging.stage(name).remove()
            self.store.delete(name)
        for row in self.store.every():
            if row.staged and row.id not in self._busy:
                mount.unmount_below(self.staging.stage(row.id).directory)
