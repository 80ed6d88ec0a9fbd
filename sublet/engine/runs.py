"""The runs of schedules: begun, ended in time, followed across restarts of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from sublet.domain.capacity import HOLDING
from sublet.domain.errors import InsufficientCapacity, NoSuchInstance, SubletError, unexpected
from sublet.domain.instance import Instance, State
from sublet.domain.schedules import LABEL, Outcome, Overlap, Run, Schedule, begins_again
from sublet.drivers import clock
from sublet.drivers.store.schedules import ScheduleStore
from sublet.engine import ending
from sublet.engine.instances import Instances
from sublet.engine.remains import Remains
from sublet.engine.restarts import AT_ONCE

log = logging.getLogger(__name__)


class Runs:
    """What goes on of one daemon's schedules. `cost` tells the dollars that an instance's starts
    since a time have cost."""

    def __init__(
        self,
        instances: Instances,
        store: ScheduleStore,
        cost: Callable[[str, float], float],
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until_promised,
    ) -> None:
        self._instances, self._store, self._cost = instances, store, cost
        self._parts = instances.parts
        self._remains = Remains(instances, store)
        self._now, self._until = now, until
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._replaced: set[int] = set()
        self._starts = asyncio.Semaphore(AT_ONCE)

    def begin(self, schedule: Schedule, run: Run) -> None:
        """Begin a run whose row is there: at once, or after the one that goes on, which is ended
        for it if the schedule says so. Of one that is over already, only tell."""
        self._tell(schedule, run)
        if run.outcome is Outcome.RUNNING:
            self._start(schedule, run, self._perform(schedule, run))
        elif run.outcome is Outcome.QUEUED:
            going = [other for other in self._store.open(schedule.id) if other.id in self._tasks]
            if not going:
                self._advance(schedule)
            elif schedule.overlap is Overlap.REPLACE:
                self._parts.tasks.start(f"replace {schedule.name}", self._replace(going))

    def recover(self, schedule: Schedule) -> None:
        """Go on with what another daemon began, or was about to begin."""
        for run in self._store.open(schedule.id):
            if run.outcome is Outcome.RUNNING and run.id not in self._tasks:
                self._recover(schedule, run)
        if not self._store.open(schedule.id):
            return
        if not any(run.id in self._tasks for run in self._store.open(schedule.id)):
            self._advance(schedule)

    def _recover(self, schedule: Schedule, run: Run) -> None:
        if self._was_started(schedule, run):
            self._start(schedule, run, self._resume(schedule, run))
        elif begins_again(schedule, run, self._now()):
            run = self._put(replace(run, began=self._now()))
            self._start(schedule, run, self._perform(schedule, run))
        else:
            text = "the daemon ended before its start"
            self._end(schedule, replace(run, outcome=Outcome.MISSED, reason=text))

    def _was_started(self, schedule: Schedule, run: Run) -> bool:
        """Whether another daemon has started its instance, or may have: one that is deleted when
        it ends leaves nothing that tells."""
        instance = self._remains.instance(schedule, run)
        if instance is None:
            return bool(run.instance) or bool(schedule.spec and schedule.spec.remove)
        return instance.state in HOLDING or instance.started >= run.began

    async def clear(self, schedule: Schedule) -> None:
        """End what goes on, and delete the instances that runs have left."""
        for run in self._store.open(schedule.id):
            if task := self._tasks.pop(run.id, None):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for run in self._store.open(schedule.id):  # as the tasks have left them
            if schedule.start and run.outcome is Outcome.RUNNING:
                await self._stop(run)
            self._put(replace(run, outcome=Outcome.STOPPED, ended=self._now()))
        await self._remains.clear(schedule)

    def goes_on(self, run: Run) -> bool:
        """Whether it is in the way of another: a machine that sleeps is not."""
        instance = self._parts.store.get(run.instance)
        return instance is None or instance.state is not State.HIBERNATED

    # One run

    def _start(self, schedule: Schedule, run: Run, work: Coroutine[Any, Any, Run]) -> None:
        async def whole() -> None:
            try:
                done = await work
            except Exception as error:  # whatever it is, the next run must not wait for this one
                done = self._failed(schedule, run, error)
            self._end(schedule, done)
            await self._remains.prune(schedule)

        task = self._parts.tasks.start(f"schedule {schedule.name}", whole())
        self._tasks[run.id] = task

    def _failed(self, schedule: Schedule, run: Run, error: Exception) -> Run:
        if not isinstance(error, SubletError):
            log.error("a run of %s failed", schedule.name, exc_info=error)
            error = unexpected(error)
        rows = {row.id: row for row in self._store.runs(schedule.id)}
        return replace(rows.get(run.id, run), outcome=Outcome.FAILED, reason=error.message)

    async def _perform(self, schedule: Schedule, run: Run) -> Run:
        if schedule.start:
            instance = self._instances.get(schedule.start)
            if instance.state in HOLDING:
                text = f"{instance.name} ran already"
                return replace(run, outcome=Outcome.SKIPPED, reason=text)
            run = self._put(replace(run, instance=instance.id, name=instance.name))
            name = instance.id
            await self._launch(lambda wait: self._instances.start(name, wait=wait))
            return await self._follow(schedule, run)
        spec = schedule.spec
        assert spec is not None
        run = self._put(replace(run, name=f"{schedule.name[:50]}-{run.id}"))
        await self._instances.images.ensure(spec.image)
        labels = {**spec.labels, LABEL: schedule.name}
        whole = replace(spec, name=run.name, labels=labels)
        instance = await self._launch(lambda wait: self._instances.run(whole, wait=wait))
        return await self._follow(schedule, self._put(replace(run, instance=instance.id)))

    async def _launch(self, start: Callable[[bool], Awaitable[tuple[Instance, Any]]]) -> Instance:
        """Start one, a few at once so that the daemon answers meanwhile. One that has to wait for
        the room of spot instances keeps nobody waiting."""
        try:
            async with self._starts:
                return (await start(False))[0]
        except InsufficientCapacity:
            return (await start(True))[0]

    async def _resume(self, schedule: Schedule, run: Run) -> Run:
        """Go on with a run that another daemon began."""
        instance = self._remains.instance(schedule, run)
        if instance is None and run.instance:
            return replace(run, outcome=Outcome.EXITED, reason="its instance has been deleted")
        if instance is None:
            text = "the daemon ended during its start"
            return replace(run, outcome=Outcome.FAILED, reason=text)
        run = self._put(replace(run, instance=instance.id, name=instance.name))
        if instance.state in HOLDING:
            return await self._follow(schedule, run)
        asleep = instance.state is State.HIBERNATED
        code = None if asleep else ending.exit_code(instance)
        done = self._ended_as(run, Outcome.EXITED, code, "")
        return done if asleep else replace(done, ended=max(run.began, instance.finished))

    async def _follow(self, schedule: Schedule, run: Run) -> Run:
        """Until the instance has ended, sleeps, or its time is up."""
        if run.id in self._replaced:  # before there was anything to stop
            await self._stop(run)
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._ended(run.instance))]
        if schedule.limit:
            waits.append(asyncio.ensure_future(self._until(run.began + schedule.limit)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            outcome, reason = Outcome.EXITED, ""
            if waits[0] not in done:
                outcome, reason = Outcome.STOPPED, f"its {schedule.limit:g} s were up"
                await self._stop(run)
            code = await waits[0]
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return self._ended_as(run, outcome, code, reason)

    def _ended_as(self, run: Run, outcome: Outcome, code: int | None, reason: str) -> Run:
        """The run with what its instance tells of its end."""
        instance = self._parts.store.get(run.instance)
        if code is None:
            outcome, reason = Outcome.STOPPED, reason or "it was hibernated"
        elif run.id in self._replaced:
            outcome, reason = Outcome.REPLACED, "the next run's time had come"
        elif instance is not None and not instance.wanted:
            outcome, reason = Outcome.STOPPED, reason or "it was stopped"
        cost = self._cost(run.instance, run.began)
        return replace(run, outcome=outcome, reason=reason, exit_code=code, cost=cost)

    async def _ended(self, instance_id: str) -> int | None:
        """The exit code, when the instance has ended; None when it was hibernated."""
        end = asyncio.ensure_future(self._instances.wait(instance_id))
        with self._parts.events.listen() as news:
            try:
                while not end.done():
                    instance = self._parts.store.get(instance_id)
                    if instance and instance.state is State.HIBERNATED:
                        return None
                    event = asyncio.ensure_future(news.get())
                    await asyncio.wait({end, event}, return_when=asyncio.FIRST_COMPLETED)
                    event.cancel()
                return end.result()
            finally:
                end.cancel()

    def _end(self, schedule: Schedule, run: Run) -> None:
        run = self._put(replace(run, ended=run.ended or self._now()))
        self._tasks.pop(run.id, None)
        self._replaced.discard(run.id)
        self._tell(schedule, run)
        self._advance(schedule)

    def _advance(self, schedule: Schedule) -> None:
        """Begin the run that waits, if one does."""
        waiting = [r for r in self._store.open(schedule.id) if r.outcome is Outcome.QUEUED]
        if waiting:
            run = self._put(replace(waiting[0], outcome=Outcome.RUNNING, began=self._now()))
            self._start(schedule, run, self._perform(schedule, run))

    async def _replace(self, going: list[Run]) -> None:
        self._replaced.update(run.id for run in going)
        for run in going:
            await self._stop(run)

    async def _stop(self, run: Run) -> None:
        with contextlib.suppress(NoSuchInstance):
            await self._instances.stop(run.instance or run.name)

    def _put(self, run: Run) -> Run:
        self._store.put_run(run)
        return run

    def _tell(self, schedule: Schedule, run: Run) -> None:
        detail = {"name": schedule.name, "outcome": str(run.outcome), "reason": run.reason}
        self._parts.events.publish("schedule.run", run.instance, **detail)
