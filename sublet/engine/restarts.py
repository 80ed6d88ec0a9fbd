"""Restart policies at work: what has ended is started again, after a pause that grows.

An instance that waits for its next start is `stopped`: it holds no capacity, no process and no
lock, so that a crash loop costs one start a minute and keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sublet.domain import restart
from sublet.domain.errors import BudgetExhausted, SubletError
from sublet.domain.instance import Instance, State
from sublet.domain.spec import InstanceSpec
from sublet.drivers import trace
from sublet.engine.ending import unwanted
from sublet.engine.lifecycle import LOST, Lifecycle

log = logging.getLogger(__name__)

Admit = Callable[[InstanceSpec], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]

AT_ONCE = 16
"""Starts at the same time: after a host's start, all of its instances are due at once."""


class Restarts:
    """Starts instances again as their policies say. `admit` waits for room, or raises where the
    host has none."""

    def __init__(self, lifecycle: Lifecycle, admit: Admit, sleep: Sleep = asyncio.sleep) -> None:
        self._lifecycle = lifecycle
        self._parts = lifecycle.parts
        self._admit = admit
        self._sleep = sleep
        self._pauses: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._starts = asyncio.Semaphore(AT_ONCE)

    def up(self, instance: Instance) -> None:
        """It runs; started by hand, it is as if it had never failed."""
        if not instance.restarts:
            self._pauses.pop(instance.id, None)

    def ended(self, instance: Instance) -> None:
        """It has stopped: start it again in a while, if its policy says so."""
        if restart.again(instance.spec.restart, history(instance)):
            self._schedule(instance, instance.finished - instance.started)
        else:
            self._pauses.pop(instance.id, None)

    def gone(self, instance_id: str) -> None:
        """It is deleted."""
        self._pauses.pop(instance_id, None)

    def recover(self) -> None:
        """The daemon has come up: start what is down and should not be."""
        for instance in self._parts.store.all():
            down = instance.state is State.STOPPED and instance.started
            policy = instance.spec.restart
            if down and restart.at_boot(policy, history(instance)):
                instance = replace(instance, wanted=True)
                self._parts.store.update(instance)
                self._schedule(instance, 0.0)

    def _schedule(self, instance: Instance, up: float) -> None:
        if instance.id in self._waiting:
            return
        pause = restart.pause(self._pauses.get(instance.id, 0.0), up)
        self._pauses[instance.id] = pause
        self._waiting.add(instance.id)
        self._lifecycle.tell("restarting", instance, pause=f"{pause:g}")
        self._parts.tasks.start(f"restart {instance.name}", self._later(instance.id, pause))

    async def _later(self, instance_id: str, pause: float) -> None:
        try:
            await self._sleep(pause)
        finally:
            self._waiting.discard(instance_id)
        await self._start(instance_id)

    def _due(self, instance_id: str) -> Instance | None:
        """The row, unless somebody has stopped, started, removed it or changed its policy."""
        instance = self._parts.store.get(instance_id)
        if instance is None or instance.state is not State.STOPPED:
            return None
        return instance if restart.again(instance.spec.restart, history(instance)) else None

    async def _start(self, instance_id: str) -> None:
        instance = self._due(instance_id)
        if instance is None:
            return
        try:
            with trace.request("restart", instance_id):
                self._lifecycle.permit(instance.spec, instance_id)
                instance = await self._admitted(instance)
                if instance is None:
                    return
                instance = replace(instance, kept=True, restarts=instance.restarts + 1)
                instance = self._lifecycle.move(instance, State.PENDING)
                async with self._starts:
                    await self._lifecycle.launch(instance)
        except BudgetExhausted as error:
            log.warning("%s is not started again: %s", instance_id, error)
            self._give_up(instance_id)
        except (SubletError, OSError) as error:
            log.warning("%s could not be started again: %s", instance_id, error)
            self._failed(instance_id)

    async def _admitted(self, instance: Instance) -> Instance | None:
        """The row, when there is room for the size that it has by then; None where it is not to
        be started any more."""
        current: Instance | None = instance
        while current is not None:
            asked = current.spec
            await self._admit(asked)
            current = self._due(instance.id)
            if current is not None and current.spec.size == asked.size:
                break
        return current

    def _give_up(self, instance_id: str) -> None:
        """It is not wanted any more, until somebody starts it."""
        instance = self._parts.store.get(instance_id)
        if instance is not None:
            unwanted(self._lifecycle, instance)

    def _failed(self, instance_id: str) -> None:
        """A start that failed counts as a run that failed at once."""
        instance = self._parts.store.get(instance_id)
        if instance is None or instance.state is not State.STOPPED:
            return
        if restart.again(instance.spec.restart, replace(history(instance), exit_code=LOST)):
            self._schedule(instance, 0.0)


def history(instance: Instance) -> restart.History:
    """What its policy needs to know of it."""
    code = LOST if instance.exit_code is None else instance.exit_code
    return restart.History(code, instance.wanted, instance.restarts)
