"""Notices: given, kept as rows, and carried out at their deadlines, not before.

A daemon that was killed between notice and deadline is followed by one that knows both from the
rows and the wall clock. While one lives it is the time that was promised that passes: a clock
that is set makes it neither shorter nor longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from sublet.domain.capacity import HOLDING
from sublet.domain.errors import SubletError
from sublet.domain.instance import Instance, State
from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.spot import Spot
from sublet.domain.units import rfc3339
from sublet.drivers import clock
from sublet.drivers.store.market import MarketStore
from sublet.engine import ending, hibernation, reactions
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.observer import NoticeObserver

log = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds between the signal that stops an instance at its deadline and SIGKILL: it has had its
time."""

LATE = 120.0
"""Seconds after its deadline in which an instance has gone, unless something is wrong: a large VM
that hibernates takes its time."""

RETRY = 5.0
"""Seconds after which a reclaim that failed is tried again."""

_RESTART = 0.1
"""Seconds between looks at an instance that is being restarted at its deadline."""


class Notices:
    """The notices of one daemon."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: MarketStore,
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until_promised,
    ) -> None:
        self._lifecycle, self._parts = lifecycle, lifecycle.parts
        self._store, self._now, self._until = store, now, until
        self.observers: list[NoticeObserver] = []
        self.taking: list[Callable[[str], None]] = []
        """Who is told that an instance's capacity is being taken back, now."""
        rows = store.notices()
        self._open = {notice.instance: notice for notice, _ in rows}
        self._begun = {notice.instance for notice, begun in rows if begun}
        self._rehearsed: dict[str, Notice] = {}
        self._read: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def get(self, instance_id: str) -> Notice | None:
        """The notice that an instance has, a rehearsed one too."""
        return self._open.get(instance_id) or self._rehearsed.get(instance_id)

    def real(self, instance_id: str) -> Notice | None:
        """The notice at whose end something is done."""
        return self._open.get(instance_id)

    def read(self, instance_id: str) -> None:
        """The instance has been told of its notice, by the metadata service."""
        if self.get(instance_id):
            self._read.setdefault(instance_id, self._now())

    def read_at(self, instance_id: str) -> float | None:
        """When it was first told, in seconds since the epoch."""
        return self._read.get(instance_id)

    def begun(self, instance_id: str) -> Notice | None:
        """The notice that is being carried out."""
        return self._open.get(instance_id) if instance_id in self._begun else None

    def deadline(self) -> float:
        """When the last of them is carried out."""
        return max((notice.deadline for notice in self._open.values()), default=0.0)

    def overdue(self, instance_id: str) -> bool:
        """Whether an instance should have gone long ago: its reclaim fails, or hangs."""
        notice = self._open.get(instance_id)
        return notice is not None and self._now() >= notice.deadline + LATE

    # Giving

    def give(self, instances: Iterable[Instance], reason: Reason, seconds: float) -> list[Notice]:
        """Announce that their capacity is taken back in so many seconds; all are told before
        anything else is done. Of one that has a notice, the deadline may only come nearer."""
        now, rows, made = self._now(), list(instances), []
        for row in rows:
            old = self._open.get(row.id)
            deadline = now + seconds
            if old is None:
                action = (row.spec.spot or Spot()).on_reclaim
                made.append(Notice(row.id, action, reason, now, deadline))
            elif deadline < old.deadline:
                made.append(replace(old, deadline=deadline))
        self._store.put_notices(made)
        for notice in made:
            fresh = notice.instance not in self._open
            self._open[notice.instance] = notice
            self._announce(notice, fresh=fresh)
        return made

    def _announce(self, notice: Notice, *, fresh: bool) -> None:
        row = self._parts.store.get(notice.instance)
        if row is None:
            return
        when = rfc3339(notice.deadline)
        self._lifecycle.tell("notice", row, action=notice.action, reason=notice.reason, time=when)
        for observer in self.observers:
            observer.noticed(notice)
        self._schedule(notice)
        if fresh and row.spec.spot:
            seconds = notice.deadline - notice.given
            self._parts.tasks.start(f"notice {row.name}", self._inside(row, row.spec.spot, seconds))

    async def _inside(self, row: Instance, spot: Spot, seconds: float) -> None:
        await reactions.send(self._lifecycle, row, spot)
        await reactions.execute(self._lifecycle, row, spot, seconds)

    def rehearse(self, notice: Notice) -> None:
        """As a notice, but nothing comes of it."""
        self._rehearsed[notice.instance] = notice
        if row := self._parts.store.get(notice.instance):
            when, reason = rfc3339(notice.deadline), notice.reason
            self._lifecycle.tell("notice", row, action=notice.action, reason=reason, time=when)
        for observer in self.observers:
            observer.noticed(notice)

    def rehearsed(self, notice: Notice) -> None:
        """The rehearsal is over."""
        if self._rehearsed.pop(notice.instance, None):
            self._read.pop(notice.instance, None)
            for observer in self.observers:
                observer.withdrawn(notice)

    # Carrying out

    def recover(self) -> None:
        """The daemon has come up: go on waiting for the deadlines."""
        for notice in list(self._open.values()):
            row = self._parts.store.get(notice.instance)
            if row is None or not (self._stays(row) or self._to_delete(notice)):
                self._drop(notice.instance)
            else:
                for observer in self.observers:
                    observer.noticed(notice)
                self._schedule(notice)

    def _schedule(self, notice: Notice) -> None:
        if task := self._tasks.pop(notice.instance, None):
            task.cancel()
        task = self._parts.tasks.start(f"reclaim {notice.instance}", self._carry_out(notice))
        self._tasks[notice.instance] = task

    async def _carry_out(self, notice: Notice) -> None:
        await self._until(notice.deadline)
        while (row := self._parts.store.get(notice.instance)) and notice.instance in self._open:
            try:
                await self._take(notice, row)
            except Exception as error:  # a full disk, say: it is tried until it is carried out
                log.warning("%s was not reclaimed: %s", row.name, error)
                await asyncio.sleep(RETRY)

    async def _take(self, notice: Notice, row: Instance) -> None:
        if row.state in (State.PENDING, State.HIBERNATING):  # it runs in a moment, or does not
            async with self._lifecycle.locks.hold(row.id, "reclaim"):
                return
        if row.id in self._lifecycle.restarting:
            await asyncio.sleep(_RESTART)
            return
        if row.state not in HOLDING and not self._to_delete(notice):
            self._drop(row.id)
            return
        self._begun.add(row.id)
        self._store.begin(row.id)
        self._lifecycle.tell("reclaim", row, action=notice.action, reason=notice.reason)
        for tell in self.taking:
            tell(row.id)
        why = f"its capacity was taken back ({notice.reason})"
        if notice.action is Action.TERMINATE:
            await ending.remove(self._lifecycle, row, force=True, volumes=True)
            return
        if notice.action is Action.HIBERNATE and (failure := await self._hibernate(row)):
            why += f"; it could not be hibernated: {failure}"
        await self._stop(row.id)
        current = self._parts.store.get(row.id)
        if current is not None and current.state in (State.STOPPED, State.HIBERNATED):
            self._parts.store.update(replace(current, reason=why))

    async def _hibernate(self, row: Instance) -> str:
        """Hibernate a VM; why that failed, empty where it did not. It is stopped then."""
        try:
            await hibernation.hibernate(self._lifecycle, row)
        except (SubletError, OSError) as error:
            message = error.message if isinstance(error, SubletError) else str(error)
            log.warning("%s could not be hibernated and is stopped: %s", row.name, message)
            self._lifecycle.tell("hibernate-failed", row, error=message)
            return message
        return ""

    async def _stop(self, instance_id: str) -> None:
        current = self._parts.store.get(instance_id)
        if current is not None and current.state in HOLDING:
            await ending.stop(self._lifecycle, current, GRACE)

    # Over

    def changed(self, old: Instance | None, new: Instance | None) -> None:
        """A row has changed: what does not run any more has no notice."""
        instance = new or old
        if instance is None or (new is not None and self._stays(new)):
            return
        if rehearsed := self._rehearsed.get(instance.id):
            self.rehearsed(rehearsed)
        notice = self._open.get(instance.id)
        if notice is not None and not (new and self._to_delete(notice)):
            self._drop(instance.id)

    def _to_delete(self, notice: Notice) -> bool:
        """Whether it is being deleted: it is not over before the row is gone."""
        return notice.action is Action.TERMINATE and notice.instance in self._begun

    def _stays(self, row: Instance) -> bool:
        """Whether it runs, or will again in a moment: a restart does not shake a notice off."""
        return row.state in HOLDING or row.id in self._lifecycle.restarting

    def _drop(self, instance_id: str) -> None:
        """Its notice is over: carried out, or withdrawn."""
        notice = self._open.pop(instance_id)
        self._read.pop(instance_id, None)
        self._store.delete_notice(instance_id)
        task = self._tasks.pop(instance_id, None)
        if instance_id in self._begun:
            self._begun.discard(instance_id)
            return
        if task is not None:
            task.cancel()
        if row := self._parts.store.get(instance_id):
            self._lifecycle.tell("notice-withdrawn", row)
        for observer in self.observers:
            observer.withdrawn(notice)
