"""Verbs on schedules, and the one task that waits for the next of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sublet.domain.errors import NoSuchImage, NoSuchSchedule, SubletError, WrongState
from sublet.domain.schedules import (
    Decision,
    Outcome,
    Overlap,
    Run,
    Schedule,
    check_schedule,
    decide,
    meeting,
    upcoming,
)
from sublet.drivers import clock
from sublet.drivers.store.schedules import ScheduleStore
from sublet.engine.instances import Instances
from sublet.engine.runs import Runs
from sublet.engine.tasks import first

log = logging.getLogger(__name__)

NEXT = 5
"""How many of the times to come are shown."""

RETRY = 60.0
"""Seconds after which a schedule that could not be decided on is looked at again."""

Until = Callable[[float | None, float], Awaitable[None]]


class Schedules:
    """The schedules of one daemon. What is due is decided by the rows and the wall clock alone,
    so that a restart of the daemon or of the host changes nothing."""

    def __init__(
        self,
        instances: Instances,
        store: ScheduleStore,
        runs: Runs,
        now: Callable[[], float] = time.time,
        until: Until = clock.until_or_set,
    ) -> None:
        self._instances, self.store, self._runs = instances, store, runs
        self._now, self._until = now, until
        self._changed = asyncio.Event()

    # Looking

    def get(self, text: str) -> Schedule:
        """The schedule of this name. Raises NoSuchSchedule."""
        found = self.store.get(text)
        if found is None:
            raise NoSuchSchedule(f"There is no schedule '{text}'.")
        return found

    def upcoming(self, schedule: Schedule, count: int = NEXT) -> list[float]:
        """When its next runs begin, seconds since the epoch."""
        return upcoming(schedule, self._now(), count)

    def last(self, schedule: Schedule) -> Run | None:
        """The newest run."""
        return self.store.last(schedule.id)

    # Changing

    def create(self, schedule: Schedule) -> Schedule:
        """Add a schedule; times that are past already are none of its runs.

        Raises InvalidArgument, NameInUse, NoSuchInstance, and NoSuchImage unless the image is
        on this host (the caller fetches it).
        """
        now = self._now()
        schedule = replace(schedule, when=" ".join(schedule.when.split()))
        if schedule.spec is not None:
            size = self._instances.parts.config.size_of(schedule.spec.size_name)
            schedule = replace(schedule, spec=schedule.spec.with_defaults(size))
        if schedule.start:
            schedule = replace(schedule, start=self._instances.get(schedule.start).id)
        schedule = replace(schedule, id=secrets.token_hex(6), created=now, handled=now)
        check_schedule(schedule, now)
        if schedule.spec and self._instances.images.local(schedule.spec.image) is None:
            raise NoSuchImage(f"The image '{schedule.spec.image}' is not on this host.")
        self.store.add(schedule)
        self._tell("created", schedule)
        return schedule

    def pause(self, text: str) -> None:
        """Let no run begin until `resume`, nor one that waits; one that goes on does so."""
        schedule = self.get(text)
        self._enable(schedule, False)
        now, reason = self._now(), "the schedule was paused"
        for run in self.store.open(schedule.id):
            if run.outcome is Outcome.QUEUED:
                done = replace(run, outcome=Outcome.SKIPPED, began=now, ended=now, reason=reason)
                self.store.put_run(done)

    def resume(self, text: str) -> None:
        """Let runs begin again. Those that would have begun meanwhile do not count as missed."""
        self._enable(self.get(text), True)

    def _enable(self, schedule: Schedule, enabled: bool) -> None:
        if schedule.enabled is not enabled:
            self.store.update(replace(schedule, enabled=enabled, handled=self._now()))
            self._tell("resumed" if enabled else "paused", schedule)

    def run(self, text: str) -> Run:
        """Begin a run now, whatever its times are. Raises WrongState where one goes on and the
        schedule skips overlaps."""
        schedule = self.get(text)
        run = self._meet(schedule, Run(0, schedule.id, self._now(), Outcome.RUNNING))
        if run.outcome is Outcome.SKIPPED:
            raise WrongState(
                f"A run of {schedule.name} goes on.",
                hint="Wait for its end, or make the schedule with --overlap queue or replace.",
            )
        (run,) = self.store.update(schedule, [run])
        self._runs.begin(schedule, run)
        return run

    async def remove(self, text: str, *, force: bool = False) -> None:
        """Delete a schedule, its history and the instances of its runs. Raises WrongState where a
        run goes on, unless `force` ends it."""
        schedule = self.get(text)
        if self.store.open(schedule.id) and not force:
            raise WrongState(
                f"A run of {schedule.name} goes on.",
                hint=f"Wait for its end, or `sublet schedule rm -f {schedule.name}`.",
            )
        self.store.update(replace(schedule, enabled=False))
        await self._runs.clear(schedule)
        while self.store.open(schedule.id):  # somebody has begun one by hand meanwhile
            await self._runs.clear(schedule)
        self.store.delete(schedule.id)
        self._tell("removed", schedule)

    def _tell(self, what: str, schedule: Schedule) -> None:
        self._instances.parts.events.publish(f"schedule.{what}", name=schedule.name)
        self._changed.set()

    # At work

    async def watch(self) -> None:
        """Go on with runs of the daemon before, then begin what is due, for ever."""
        for schedule in self.store.every():
            self._recover(schedule)
        while True:
            self._changed.clear()
            wakes = [self._look(schedule) for schedule in self.store.every() if schedule.enabled]
            wake = min((wake for wake in wakes if wake is not None), default=None)
            await first(self._changed.wait(), self._until(wake, self._now()))

    def _recover(self, schedule: Schedule) -> None:
        """Go on with the runs that are there. A broken schedule stops no other."""
        try:
            self._runs.recover(schedule)
        except SubletError as error:
            log.error("schedule %s: %s", schedule.name, error)

    def _look(self, schedule: Schedule) -> float | None:
        """Begin what is due of one schedule; when to look again. A broken one stops no other."""
        try:
            decision = decide(schedule, self._now())
            self._carry_out(schedule, decision)
        except SubletError as error:
            log.error("schedule %s: %s", schedule.name, error)
            return None
        except Exception:  # a full disk, say; every schedule of the host hangs on this task
            log.exception("schedule %s could not be decided on", schedule.name)
            return self._now() + RETRY
        return decision.wake

    def _carry_out(self, schedule: Schedule, decision: Decision) -> None:
        new = []
        if decision.missed is not None:
            text = "the host or the daemon was not running"
            new.append(self._over(schedule, decision.missed, Outcome.MISSED, text))
        if decision.run is not None:
            run = Run(0, schedule.id, decision.run, Outcome.RUNNING)
            new.append(self._meet(schedule, run))
        if new or decision.handled != schedule.handled:
            for run in self.store.update(replace(schedule, handled=decision.handled), new):
                self._runs.begin(schedule, run)

    def _meet(self, schedule: Schedule, run: Run) -> Run:
        """The run as it is to begin: after or instead of one that goes on."""
        going = [row for row in self.store.open(schedule.id) if self._runs.goes_on(row)]
        match meeting(schedule.overlap, going):
            case None:
                return replace(run, began=self._now())
            case Overlap.SKIP:
                text = f"the run of {going[0].name or 'before'} went on"
                return self._over(schedule, run.due, Outcome.SKIPPED, text)
            case _:
                return replace(run, outcome=Outcome.QUEUED)

    def _over(self, schedule: Schedule, due: float, outcome: Outcome, reason: str) -> Run:
        now = self._now()
        return Run(0, schedule.id, due, outcome, began=now, ended=now, reason=reason)
