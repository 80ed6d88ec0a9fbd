"""Verbs on backups: make, list, find, complete, remove, verify, prune.

The repository is the truth about what is complete. The rows of this host tell, beyond that, of
backups on their way: a row is there before the backup's stage, and the stage goes when all of it
has arrived.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from sublet.domain.backup import Backup, inside, superfluous
from sublet.domain.errors import Busy, InvalidArgument, NoSuchBackup, NoSuchInstance
from sublet.domain.instance import Instance
from sublet.domain.leftover import Leftover
from sublet.domain.progress import Report, silent
from sublet.domain.retention import Keep
from sublet.drivers import files, mount
from sublet.drivers.store.backups import BackupStore
from sublet.engine import backup_records as records
from sublet.engine.contents import milliseconds
from sublet.engine.instances import Instances
from sublet.engine.sending import Sending
from sublet.engine.staging import Staging


class Backups:
    """The backups of one daemon's instances, and what its repositories hold."""

    def __init__(self, instances: Instances, store: BackupStore) -> None:
        self.instances = instances
        self.lifecycle, self.parts = instances.lifecycle, instances.parts
        self.staging, self.store = Staging(self.lifecycle), store
        self.sending = Sending(self.lifecycle, store, self.staging)
        self.repositories = self.sending.repositories

    # Looking

    async def every(self, instance: str = "", repository: str = "") -> list[Backup]:
        """The backups in a repository, and those on their way to it, the newest first; an
        instance's, or all. Raises RepositoryUnavailable."""
        address = self.repositories.address(repository)
        there = {backup.id: backup for backup in await self.repositories.backups(address)}
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
        asked, address = inside(paths), self.repositories.address(repository)
        if asked and instance.spec.vm:
            raise InvalidArgument(
                f"{instance.name} is a VM: its disk is backed up as a whole.", hint="No --path."
            )
        async with self.lifecycle.locks.hold(f"stage {instance.id}", "backup"):
            backup = await self._stage(self.lifecycle.current(instance), address, asked, report)
        return await self.sending.send(backup, keep=keep, report=report)

    async def _stage(
        self, instance: Instance, address: str, paths: Sequence[str], report: Report
    ) -> Backup:
        backup_id = secrets.token_hex(6)
        backup = Backup(backup_id, address, instance.id, instance.name, time.time())
        self.sending.busy.add(backup.id)
        self.store.put(backup)
        self.sending.tell("started", backup)
        report(f"Copying the files of {instance.name}")
        try:
            parent = self.sending.parent(instance.id, address)
            backup, paused = await self.staging.fill(backup, instance, paths, parent)
            backup = replace(backup, staged=True, missing="all of it")
            self.store.put(backup)
        except BaseException as error:
            await self.lifecycle.anyway(self.sending.drop(backup))
            self.sending.tell("failed", backup, reason=records.why(error))
            raise
        finally:
            self.sending.busy.discard(backup.id)
        self.sending.tell("copied", backup, paused_ms=milliseconds(paused))
        return backup

    def missed(self, instance_id: str) -> None:
        """There was no time for a backup to begin."""
        row = self.parts.store.get(instance_id)
        about = {"name": row.name} if row else {}
        self.parts.events.publish("backup.incomplete", instance_id, missing="all of it", **about)

    # Removing

    async def remove(self, text: str, repository: str = "") -> None:
        """Delete a backup. What it took in the repository, `prune` gives back."""
        backup = await self.get(text, repository)
        if backup.id in self.sending.busy:
            raise Busy(f"The backup {backup.id} is being made.")
        await self._remove([backup])

    async def _remove(self, backups: Sequence[Backup]) -> None:
        for address in {backup.repository for backup in backups}:
            gone = [b for b in backups if b.repository == address]
            snapshots = [backup.snapshot for backup in gone if backup.snapshot]
            if repository := self.repositories.there(address):  # else they are gone with it
                await repository.forget(snapshots)
            for backup in gone:
                row = self.store.get(backup.id)
                if row and row.repository == address:  # a copy elsewhere is another one
                    await self.sending.drop(backup)
                self.sending.tell("removed", backup)

    async def prune(
        self, instance: str, keep: Keep, repository: str = "", *, dry: bool = False
    ) -> list[Backup]:
        """Delete what `keep` does not keep of the backups of an instance, or of each, and give
        back what no backup needs; what is deleted. `dry`: only tell."""
        keep.check()
        address = self.repositories.address(repository)
        everything = await self.every(instance, address)
        going = superfluous(everything, keep)
        if not dry:
            await self._remove(going)
            if repository_there := self.repositories.there(address):
                await repository_there.prune()
        return going

    async def thin(self, instance_id: str, keep: Keep) -> None:
        """Forget what a plan does not keep of an instance's backups; the room is `prune`'s."""
        address = self.repositories.address("")
        rows = [row for row in self.store.of(instance_id) if row.repository == address]
        await self._remove(superfluous(rows, keep))

    async def verify(self, repository: str = "", *, data: bool = False) -> None:
        """Check a repository, with `data` every byte of it. Raises BackupFailed."""
        await self.repositories.at(self.repositories.address(repository)).check(data=data)

    # Recovery

    def recover(self) -> None:
        """Go on with what a daemon that ended had begun to send."""
        for row in self.store.every():
            if row.staged and not row.complete:
                self.parts.store.set_setting(f"reindex {row.repository}", "1")
                self.sending.insist(row, pause=0.0)

    def hold(self, name: str) -> None:
        """Somebody uses a stage."""
        self.sending.busy.add(name)

    def release(self, name: str) -> None:
        self.sending.busy.discard(name)

    def leftovers(self) -> list[Leftover]:
        """Stages that belong to no backup, and rows of backups that were never put together."""
        rows = self.store.every()
        place = self.staging.stage("").directory
        staged = {row.id for row in rows if row.staged} | self.sending.busy | self.sending.clearing
        broken = {row.id for row in rows if not (row.staged or row.complete)} - self.sending.busy
        strays = set(files.entries(place)) - staged
        return [Leftover("backup", str(place / name)) for name in sorted(strays | broken)]

    async def clean(self) -> None:
        """Remove what `leftovers` finds, and mounts of stages that nobody works at."""
        for leftover in self.leftovers():
            name = leftover.name.rpartition("/")[2]
            await self.staging.stage(name).remove()
            self.store.delete(name)
        for row in self.store.every():
            if row.staged and row.id not in self.sending.busy:
                mount.unmount_below(self.staging.stage(row.id).directory)
