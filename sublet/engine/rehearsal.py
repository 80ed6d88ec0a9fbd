"""A rehearsed notice: an instance is told that it will be reclaimed, and is not.

What it does until then is watched, so that its owner knows before the day comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sublet.domain.errors import WrongState
from sublet.domain.event import Event
from sublet.domain.instance import LIVE, Instance, not_running
from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.progress import Report
from sublet.domain.spec import InstanceSpec
from sublet.domain.spot import Spot
from sublet.domain.units import format_bytes, rfc3339
from sublet.drivers import usage
from sublet.engine import reactions
from sublet.engine.instances import Instances
from sublet.engine.market import SpotMarket


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it. Times in seconds after the notice, None: it did not happen, or nothing like
    it was asked for. `exit_code` of the notice's command; `ended`: the instance ended by itself;
    `metadata`: it read of its notice from the metadata service; `lost_bytes`: what it has written
    since its last complete backup, where the action deletes that."""

    instance: str
    name: str
    action: Action
    notice: float
    reacted: bool = False
    signal: str | None = None
    exec: float | None = None
    exit_code: int | None = None
    ended: float | None = None
    metadata: float | None = None
    backup_started: float | None = None
    backup_completed: float | None = None
    last_backup: str | None = None
    lost_bytes: int = 0
    lost_memory: bool = False

    @property
    def backed_up(self) -> bool:
        """Whether a backup that it began in time was complete in time."""
        return self.backup_completed is not None


class Rehearsals:
    """Rehearsals with the instances of one daemon."""

    def __init__(self, market: SpotMarket, instances: Instances) -> None:
        self._market, self._instances = market, instances
        self._lifecycle, self._parts = instances.lifecycle, instances.parts

    async def rehearse(self, text: str, seconds: float, report: Report) -> Rehearsal:
        """Give notice of so many seconds, watch, and tell. Raises WrongState for one that does not
        run, or is being reclaimed in earnest."""
        row = self._instances.get(text)
        if row.state not in LIVE:
            raise not_running(row.name, row.state)
        if self._market.notice(row.id):
            raise WrongState(f"{row.name} has a notice already.", hint="Try again afterwards.")
        spot, now = row.spec.spot or Spot(), self._market.now()
        notice = Notice(row.id, spot.on_reclaim, Reason.REHEARSAL, now, now + seconds)
        report(f"{row.name} is told: {notice.action} in {seconds:g} s. Nothing of it is done.")
        with self._parts.events.listen() as queue:
            try:
                self._market.notices.rehearse(notice)
                found = await self._watch(row, spot, notice, queue, report)
            finally:
                read = self._market.notices.read_at(row.id)
                self._market.notices.rehearsed(notice)
        if read is not None:
            found = replace(found, metadata=read - notice.given)
        current = self._parts.store.get(row.id)
        return replace(await self._lost(current or row, found), reacted=_reacted(found))

    async def _watch(
        self, row: Instance, spot: Spot, notice: Notice, queue: asyncio.Queue[Event], report: Report
    ) -> Rehearsal:
        seconds = notice.deadline - notice.given
        found = Rehearsal(row.id, row.name, notice.action, seconds)
        if await reactions.send(self._lifecycle, row, spot):
            found = replace(found, signal=spot.notice_signal)
            report(f"{spot.notice_signal} is sent.")
        command = asyncio.ensure_future(reactions.execute(self._lifecycle, row, spot, seconds))
        begun: set[str] = set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(notice.deadline - self._market.now()):
                    while not _over(found, row.spec):
                        event = await queue.get()
                        if event.instance == row.id and follows(event, begun):
                            found = _noted(found, event, notice.given)
                            if line := _line(event):
                                report(f"{event.time - notice.given:6.2f} s  {line}")
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)
        return found

    async def _lost(self, row: Instance, found: Rehearsal) -> Rehearsal:
        """What would be lost when the action is taken."""
        last = self._last_backup(row)
        found = replace(found, last_backup=rfc3339(last) if last else None)
        if found.action is not Action.TERMINATE:
            return replace(found, lost_memory=found.action is Action.STOP)
        directories = [self._parts.containers.writable.layer(row.id).directory]
        volumes = self._lifecycle.volumes.own(row)
        directories += [self._parts.volumes.directory(volume) for volume in volumes]
        lost = await asyncio.to_thread(usage.written_since, last, *directories)
        return replace(found, lost_bytes=lost, lost_memory=True)

    def _last_backup(self, row: Instance) -> float:
        """The moment that its last complete backup shows, 0: there is none."""
        events = self._parts.store.events(since=row.created)
        return last_backup(event for event in events if event.instance == row.id)


def last_backup(events: Iterable[Event]) -> float:
    """The moment that the last complete backup of an instance shows, by its events; 0: none."""
    begun: dict[str, float] = {}
    last = 0.0
    for event in events:
        backup = event.detail.get("backup", "")
        if event.type == "backup.started":
            begun[backup] = event.time
        elif event.type == "backup.completed":
            last = max(last, begun.get(backup, 0.0))
    return last


def follows(event: Event, begun: set[str]) -> bool:
    """Whether it may have come of the notice: of a backup only if that began after it. `begun` are
    those that did; this keeps it."""
    backup = event.detail.get("backup", "")
    if event.type == "backup.started":
        begun.add(backup)
    return not event.type.startswith("backup.") or backup in begun


def _noted(found: Rehearsal, event: Event, begin: float) -> Rehearsal:
    after = event.time - begin
    if event.type == "instance.notice-exec":
        code = event.detail.get("exit_code")
        return replace(found, exec=after, exit_code=None if code is None else int(code))
    if event.type in ("instance.stopped", "instance.terminated", "instance.hibernated"):
        return replace(found, ended=after)
    if event.type == "backup.started":
        return replace(found, backup_started=after)
    if event.type == "backup.completed":
        return replace(found, backup_completed=after)
    return found


def _over(found: Rehearsal, spec: InstanceSpec) -> bool:
    """Whether all that can come of the notice has come before its end."""
    if found.ended is not None:
        return True
    spot, backup = spec.spot or Spot(), spec.backup is not None and spec.backup.on_notice
    if spot.notice_signal or not (spot.notice_exec or backup):
        return False  # what may come of it is not known
    told = not spot.notice_exec or found.exec is not None
    return told and (not backup or found.backup_completed is not None)


def _line(event: Event) -> str:
    """What to tell of an event while it happens; empty: nothing."""
    if event.type == "instance.notice-exec":
        code = event.detail.get("exit_code")
        return "its command did not end" if code is None else f"its command ended with {code}"
    told = {
        "instance.stopped": "it has stopped by itself",
        "instance.terminated": "it is gone",
        "backup.started": "its backup has begun",
        "backup.completed": "its backup is complete",
        "backup.failed": f"its backup has failed: {event.detail.get('reason', '')}",
    }
    return told.get(event.type, "")


def _reacted(found: Rehearsal) -> bool:
    """Whether the notice led to anything that the instance, or its backup, did."""
    done = found.exit_code == 0 or found.ended is not None or found.metadata is not None
    return done or found.backup_started is not None


def summary(found: Rehearsal) -> list[str]:
    """The report in sentences."""
    lines = ["It reacted." if found.reacted else "It did not react: nothing happened in time."]
    if found.exec is not None:
        code = "did not end in time" if found.exit_code is None else f"exit code {found.exit_code}"
        lines.append(f"Its command took {found.exec:.1f} s: {code}.")
    if found.backed_up:
        lines.append(f"Its backup was complete after {found.backup_completed:.1f} s.")
    elif found.backup_started is not None:
        lines.append("Its backup was not complete in time.")
    if found.lost_bytes:
        since = "" if found.last_backup is None else f", since {found.last_backup},"
        size = format_bytes(found.lost_bytes)
        lines.append(f"To be lost: {size} that it wrote{since} and no backup has.")
    if found.lost_memory:
        lines.append("To be lost: what it has in memory.")
    return lines
