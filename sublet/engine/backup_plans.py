"""Backup plans at work: who asked for it is backed up at its notice, when it stops, and regularly.

At a notice only what fits before the deadline is sent. What does not stays on this host, as a copy
that needs the instance no more, and is sent when the instance has stopped, or is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from sublet.domain.backup import Backup
from sublet.domain.backup_plan import BackupPlan, cut, due
from sublet.domain.errors import SubletError
from sublet.domain.instance import LIVE, Instance
from sublet.domain.notice import Notice
from sublet.drivers import clock
from sublet.engine.backups import Backups
from sublet.engine.sending import RETRY

log = logging.getLogger(__name__)

AT_NOTICE = 8
"""Backups at the same time that have a deadline."""


class BackupPlans:
    """Carries out the plans of one daemon's instances."""

    def __init__(
        self,
        backups: Backups,
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until,
    ) -> None:
        self._backups, self._parts = backups, backups.parts
        self._lifecycle = backups.lifecycle
        self._now, self._until = now, until
        self._regular: dict[str, asyncio.Task[None]] = {}
        self._turns = backups.sending.turns
        self._urgent = asyncio.Semaphore(AT_NOTICE)

    # What becomes of instances

    def up(self, instance: Instance) -> None:
        """It runs, or was found running."""
        self._drop(instance.id)
        plan = instance.spec.backup
        if plan and plan.every:
            work = self._regularly(instance, plan)
            self._regular[instance.id] = self._start(instance.id, work)

    def updated(self, instance: Instance) -> None:
        """What was asked of it has changed."""
        if instance.state in LIVE:
            self.up(instance)

    def ended(self, instance: Instance) -> None:
        """It has stopped: what was cut off is completed, and what the plan asks for is done."""
        self._drop(instance.id)
        plan = instance.spec.backup
        stopped = instance.id not in self._lifecycle.restarting
        if self._unfinished(instance.id) or (plan and plan.on_stop and stopped):
            wanted = plan if plan and plan.on_stop and stopped else None
            self._start(instance.id, self._after(instance.id, wanted))

    def gone(self, instance_id: str) -> None:
        """It is deleted: what is to be sent yet is a copy."""
        self._drop(instance_id)
        if self._unfinished(instance_id):
            self._start(instance_id, self._after(instance_id, None))

    def noticed(self, notice: Notice) -> None:
        """It has been given notice."""
        row = self._parts.store.get(notice.instance)
        if row and row.spec.backup and row.spec.backup.on_notice:
            self._start(notice.instance, self._in_time(notice, row.spec.backup))

    def withdrawn(self, notice: Notice) -> None:
        """It is over; a backup that has begun goes on."""

    # Doing it

    def _start(self, instance_id: str, work: Awaitable[None]) -> asyncio.Task[None]:
        async def told() -> None:
            try:
                await work
            except (SubletError, OSError) as error:  # the event tells whoever wants to know
                log.warning("%s is not backed up: %s", instance_id, error)

        return self._parts.tasks.start(f"backup of {instance_id}", told())

    def _drop(self, instance_id: str) -> None:
        if task := self._regular.pop(instance_id, None):
            task.cancel()

    def _unfinished(self, instance_id: str) -> list[Backup]:
        rows = self._backups.store.of(instance_id)
        return [row for row in rows if row.staged and not row.complete]

    async def _in_time(self, notice: Notice, plan: BackupPlan) -> None:
        """Back up until shortly before the deadline."""
        try:
            async with asyncio.timeout(cut(notice.given, notice.deadline) - self._now()):
                async with self._urgent:
                    await self._backups.create(notice.instance, keep=True)
        except TimeoutError:
            last = self._backups.last(notice.instance)
            if last is None or last.time < notice.given:  # it has not come to anything
                self._backups.missed(notice.instance)
            return
        await self._backups.thin(notice.instance, plan.keep)

    async def _after(self, instance_id: str, plan: BackupPlan | None) -> None:
        """Complete what was cut off; with a `plan`, back up what it has now."""
        async with self._turns:
            for row in self._unfinished(instance_id):
                if not await self._backups.sending.tried(row):
                    self._backups.sending.insist(row)
            if plan and self._parts.store.get(instance_id):
                await self._backups.create(instance_id)
                await self._backups.thin(instance_id, plan.keep)

    async def _regularly(self, instance: Instance, plan: BackupPlan) -> None:
        """Back up every so often, for as long as it runs."""
        last = self._backups.last(instance.id)
        since = max(last.time if last else 0.0, instance.started)
        while True:
            await self._until(self._now() + due(plan, since, self._now()))
            try:
                async with self._turns:
                    since = self._now()
                    await self._backups.create(instance.id)
                await self._backups.thin(instance.id, plan.keep)
            except (SubletError, OSError) as error:
                log.warning("the regular backup of %s failed: %s", instance.name, error)
                since = self._now() - max(0.0, plan.every - RETRY)
