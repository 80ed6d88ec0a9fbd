"""Health checks at work: one task for each instance that has a check, through the exec path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sublet.domain import health
from sublet.domain.errors import SubletError, WrongState
from sublet.domain.health import Health, Healthcheck, Report, Result
from sublet.domain.image import ImageConfig
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.spec import ExecSpec
from sublet.drivers.runner import Execution
from sublet.engine.lifecycle import Lifecycle

log = logging.getLogger(__name__)

Execute = Callable[[str, ExecSpec], Awaitable[Execution]]


class HealthChecks:
    """Checks the instances of one daemon. `execute` starts a further process in one."""

    def __init__(self, lifecycle: Lifecycle, execute: Execute) -> None:
        self._lifecycle = lifecycle
        self._parts = lifecycle.parts
        self._execute = execute
        self._reports: dict[str, Report] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def report(self, instance_id: str) -> Report | None:
        """What is known of the health of an instance that has a check."""
        return self._reports.get(instance_id)

    def up(self, instance: Instance) -> None:
        """It runs, or was found running: check it from now on."""
        check = self.check(instance)
        if check is None or instance.health is Health.NONE:
            return
        self._reports[instance.id] = Report(instance.health)
        task = self._parts.tasks.start(f"health {instance.name}", self._watch(instance, check))
        self._tasks[instance.id] = task

    def ended(self, instance: Instance) -> None:
        """It has stopped; its last results are kept."""
        if task := self._tasks.pop(instance.id, None):
            task.cancel()

    def gone(self, instance_id: str) -> None:
        """It is deleted; one with `--rm` has not been said to have ended."""
        if task := self._tasks.pop(instance_id, None):
            task.cancel()
        self._reports.pop(instance_id, None)

    def check(self, instance: Instance) -> Healthcheck | None:
        """The check of an instance, None where it has none."""
        image = self._parts.image_store.get(instance.digest)
        config = image.config if image else ImageConfig()
        return health.effective(instance.spec.health, config.healthcheck)

    async def _watch(self, instance: Instance, check: Healthcheck) -> None:
        while True:
            age = max(0.0, time.time() - instance.started)
            await asyncio.sleep(health.pause(self._reports[instance.id], check, age))
            current = self._parts.store.get(instance.id)
            if current is None or current.state not in LIVE:
                return
            if current.state is State.RUNNING:
                await self._once(instance, check)

    async def _once(self, instance: Instance, check: Healthcheck) -> None:
        start = time.time()
        try:
            code, output = await self._run(instance.id, check)
        except WrongState:  # it has ended, or was paused, this very moment
            return
        except (SubletError, OSError) as error:
            code, output = getattr(error, "exit_code", 1), str(error)
        current = self._parts.store.get(instance.id)
        if current is None or current.state is not State.RUNNING:
            return  # ended, paused or stopping meanwhile: that says nothing of its health
        result = Result(start, time.time(), code, output)
        report = health.following(self._reports[instance.id], result, check, instance.started)
        self._reports[instance.id] = report
        if report.health is not current.health:
            current = replace(current, health=report.health)
            self._parts.store.update(current)
            self._lifecycle.tell("health", current, health=str(report.health))

    async def _run(self, instance_id: str, check: Healthcheck) -> tuple[int, str]:
        """Exit code and output of the check; it is killed when it takes too long."""
        written = bytearray()

        async def keep(stream: int, data: bytes) -> None:
            written.extend(data[: health.OUTPUT_LIMIT - len(written)])

        code = health.TIMED_OUT
        try:
            async with asyncio.timeout(check.timeout):
                execution = await self._execute(instance_id, ExecSpec(check.test))
                try:
                    await execution.streams.close_input()
                    await execution.streams.pump(keep)
                    code = await execution.wait()
                finally:
                    execution.close()
        except TimeoutError:
            return code, f"It took more than {check.timeout:g} s and was killed."
        return code, written.decode(errors="replace")
