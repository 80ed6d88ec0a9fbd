"""Backups on their way: their stages are sent, one of an instance at a time, until all has arrived.

What is cut off is noted in the backup's row, and tried again where it is to be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sublet.domain.backup import Backup
from sublet.domain.errors import BackupIncomplete, NoSuchBackup, SubletError
from sublet.domain.progress import Report, silent
from sublet.domain.repositories import is_local
from sublet.domain.units import format_bytes
from sublet.drivers.restic import Done, Repository
from sublet.drivers.stage import Stage
from sublet.drivers.store.backups import BackupStore
from sublet.engine import backup_records as records
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.repositories import Repositories
from sublet.engine.staging import Staging

log = logging.getLogger(__name__)


AT_ONCE = 2
"""Backups at the same time, of those that nobody waits for."""

RETRY = 300.0
"""Seconds after which one that failed is tried again, at most."""


class Sending:
    """Sends the stages of one daemon's backups."""

    def __init__(self, lifecycle: Lifecycle, store: BackupStore, staging: Staging) -> None:
        self.lifecycle, self.parts = lifecycle, lifecycle.parts
        self.store, self.staging = store, staging
        self.repositories = Repositories(self.parts.config)
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.busy: set[str] = set()
        """Stages that somebody works at."""
        self.clearing: set[str] = set()
        """Stages that are being removed."""
        self._insisting: set[str] = set()

    def tell(self, what: str, backup: Backup, **detail: str) -> None:
        """Publish `backup.<what>`."""
        about = {"backup": backup.id, "name": backup.name, **detail}
        self.parts.events.publish(f"backup.{what}", backup.instance, **about)

    def parent(self, instance_id: str, address: str) -> Backup | None:
        """The last backup, of an instance or any, that is complete in a repository."""
        rows = self.store.of(instance_id) if instance_id else self.store.every()
        return next((row for row in rows if row.complete and row.repository == address), None)

    async def drop(self, backup: Backup) -> None:
        """Forget a backup, and remove its stage."""
        self.store.put(replace(backup, staged=False))
        await self.staging.stage(backup.id).remove()
        self.store.delete(backup.id)

    # Sending

    async def send(
        self, backup: Backup, *, keep: bool, report: Report, again: bool = False
    ) -> Backup:
        """Send a stage when it is its turn. What of it is missing when this is cut off is in the
        row then. `again`: an earlier daemon, or try, may have sent all of it."""
        told, mine = [Done()], False

        def progress(done: Done) -> None:
            if done.total_bytes:
                told[0] = done
                percent = 100 * done.bytes // done.total_bytes
                report(f"Sending {format_bytes(done.total_bytes)}: {percent} %")

        try:
            async with self.lifecycle.locks.hold(f"backup {backup.instance}", "backup"):
                backup = self._waiting(backup)
                if backup.complete:
                    return backup
                mine = True
                self.busy.add(backup.id)
                sent = await self._transfer(backup, progress, again=again)
                self.store.put(sent)
        except BaseException as error:
            if mine or backup.id not in self.busy:
                await self.lifecycle.anyway(self._cut_off(backup, told[0], error, keep=keep))
            raise
        finally:
            if mine:
                self.busy.discard(backup.id)
        self.clearing.add(backup.id)
        self.parts.tasks.start(f"stage {backup.id}", self._clear(backup.id))
        self.tell("completed", sent, size=str(sent.size))
        return sent

    def _waiting(self, backup: Backup) -> Backup:
        """The row of a backup whose turn it is: others may have sent, or removed it meanwhile."""
        row = self.store.get(backup.id)
        if row is None or not (row.staged or row.complete):
            raise NoSuchBackup(f"The backup {backup.id} was removed meanwhile.")
        return row

    async def _clear(self, backup_id: str) -> None:
        """Remove the stage of a backup that is complete; nobody waits for that."""
        try:
            await self.staging.stage(backup_id).remove()
        finally:
            self.clearing.discard(backup_id)

    async def _transfer(
        self, backup: Backup, progress: Callable[[Done], None], *, again: bool
    ) -> Backup:
        repository = self.repositories.at(backup.repository)
        if is_local(backup.repository) or not self.parent("", backup.repository):
            async with self.lifecycle.locks.hold("repository", "its making"):
                await repository.prepare()
        if again and (arrived := await self._arrived(repository, backup)):
            return arrived
        await self._reindex(repository)
        stage, manifest = self.staging.stage(backup.id), self.staging.manifest(backup)
        places = [piece.place for piece in manifest.pieces]
        async with stage.shown(places):
            paths = self.staging.paths(stage, manifest)
            backup = replace(backup, size=await self.staging.size(stage, paths))
            parent = await self._usable(stage, places)
            send = partial(
                repository.backup,
                stage.directory,
                paths,
                tags=records.tags(backup),
                report=progress,
            )
            try:
                snapshot = await send(parent=parent)
            except NoSuchBackup:  # somebody has removed it
                snapshot = await send(parent="")
        return replace(backup, snapshot=snapshot, complete=True, staged=False, missing="")

    async def _arrived(self, repository: Repository, backup: Backup) -> Backup | None:
        """The backup, if it is in the repository: who sent it was killed before noting that."""
        for kept in await repository.snapshots():
            there = records.of_tags(kept, backup.repository)
            if there.id == backup.id:
                return replace(there, manifest=backup.manifest)
        return None

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
        row = self.store.get(backup.id)
        if row is None or row.complete:
            return
        self.parts.store.set_setting(f"reindex {backup.repository}", "1")
        if not keep:
            await self.drop(backup)
            self.tell("failed", backup, reason=records.why(error))
            return
        backup = replace(backup, missing=records.missing(done), reason=records.why(error))
        self.store.put(backup)
        what = "incomplete" if isinstance(error, asyncio.CancelledError) else "failed"
        self.tell(what, backup, missing=backup.missing, reason=backup.reason)

    async def _reindex(self, repository: Repository) -> None:
        key = f"reindex {repository.address}"
        if self.parts.store.setting(key):
            with contextlib.suppress(SubletError):  # then it is sent again
                await repository.index()
                self.parts.store.set_setting(key, "")

    # Again

    async def complete(self, backup: Backup, report: Report = silent) -> Backup:
        """Send what is missing of a backup whose stage is here. Raises BackupIncomplete,
        NoSuchBackup."""
        if backup.complete:
            return backup
        if not backup.staged:
            raise BackupIncomplete(f"Of the backup {backup.id}, {backup.missing} is missing.")
        return await self.send(backup, keep=True, report=report, again=True)

    async def tried(self, backup: Backup) -> bool:
        """Complete a backup; whether there is nothing more to do for it."""
        try:
            await self.complete(backup)
        except (NoSuchBackup, BackupIncomplete):  # it is gone
            return True
        except (SubletError, OSError) as error:
            log.warning("the backup %s is not complete yet: %s", backup.id, error)
            return False
        return True

    def insist(self, backup: Backup, pause: float = RETRY) -> None:
        """Complete a backup after so many seconds, and again until its repository takes it."""
        if backup.id not in self._insisting:
            self._insisting.add(backup.id)
            self.parts.tasks.start(f"backup {backup.id}", self._insist(backup, pause))

    async def _insist(self, backup: Backup, pause: float) -> None:
        try:
            while True:
                await asyncio.sleep(pause)
                async with self.turns:
                    if await self.tried(backup):
                        return
                pause = RETRY
        finally:
            self._insisting.discard(backup.id)
