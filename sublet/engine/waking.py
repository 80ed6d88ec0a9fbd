"""Waking by a connection: the first packet to a port of an instance that sleeps starts it.

While it sleeps, nftables drops what is for its ports, and tells us. Who connects repeats his
packet, as every TCP does after 1, 3, 7 and 15 seconds; once the instance listens, it goes through
as it always does. Nothing of ours stays in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sublet.domain import waking
from sublet.domain.errors import SubletError
from sublet.domain.instance import Instance, State
from sublet.domain.ports import Port
from sublet.drivers.network import probe
from sublet.drivers.network.knocks import Knock
from sublet.engine.instances import Instances

log = logging.getLogger(__name__)

Listens = Callable[[str, int], Awaitable[bool]]

PATIENCE = 60.0
"""Seconds that a program gets to listen, before who connects is told that nobody does."""

LOOK = 0.05
"""Seconds between looks at whether it listens."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance could not be woken, how many times in a row, and the time of a steady clock
    before which knocks change nothing."""

    reason: str
    count: int
    until: float


class Waking:
    """Wakes the instances of one daemon."""

    def __init__(
        self,
        instances: Instances,
        now: Callable[[], float] = time.monotonic,
        listens: Listens = probe.listens,
    ) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle
        self._parts = instances.parts
        self._now, self._listens = now, listens
        self._waking: set[str] = set()
        self._failures: dict[str, Failure] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Hear of knocks from now on."""
        try:
            self._parts.network.knocks.open(self.heard)
        except OSError as error:
            log.error("instances are not woken by connections: %s", error)

    def failure(self, instance_id: str) -> Failure | None:
        """Why it could not be woken when somebody last knocked."""
        return self._failures.get(instance_id)

    # What becomes of instances

    def up(self, instance: Instance) -> None:
        """It runs: let in who knocks, as soon as somebody there listens."""
        self._failures.pop(instance.id, None)
        self._stop_opening(instance.id)
        if self._parts.network.ports.quiets(instance.id):
            work = self._let_in(instance)
            self._opening[instance.id] = self._parts.tasks.start(f"door of {instance.name}", work)

    def ended(self, instance: Instance) -> None:
        """It has stopped."""
        self._stop_opening(instance.id)
        if waking.sleeps(instance):
            self._parts.tasks.start(f"ports of {instance.name}", self._hold(instance))

    def gone(self, instance_id: str) -> None:
        """It is deleted."""
        self._stop_opening(instance_id)
        self._failures.pop(instance_id, None)

    def updated(self, instance: Instance) -> None:
        """What was asked of it has changed: one that sleeps may be woken now, or no longer."""
        if instance.state in waking.ASLEEP:
            self._parts.tasks.start(f"ports of {instance.name}", self._hold(instance))

    async def _hold(self, instance: Instance) -> None:
        """Its ports are held if it sleeps, and not if it does not."""
        async with self._lifecycle.locks.hold(instance.id, "ports"):
            current = self._parts.store.get(instance.id)
            if current is not None and current.state in waking.ASLEEP:
                await self._lifecycle.releases.withdraw(current)

    # Knocks

    def heard(self, knock: Knock) -> None:
        """Somebody knocks: wake who sleeps there, unless that is under way or has just failed."""
        instance = self._parts.store.get(self._parts.network.ports.sleeper(knock))
        if instance is None or not waking.sleeps(instance) or instance.id in self._waking:
            return
        failure = self._failures.get(instance.id)
        if failure and self._now() < failure.until:
            return
        self._waking.add(instance.id)
        self._parts.tasks.start(f"wake {instance.name}", self._wake(instance, knock))

    async def _wake(self, instance: Instance, knock: Knock) -> None:
        started = self._now()
        try:
            await self._instances.start(instance.id)
        except (SubletError, OSError) as error:
            self._failed(instance, error)
        else:
            took = self._now() - started
            by = f"{knock.source} to {knock.protocol} {knock.port}"
            self._lifecycle.tell("woken", instance, by=by, seconds=f"{took:.3f}")
        finally:
            self._waking.discard(instance.id)

    def _failed(self, instance: Instance, error: Exception) -> None:
        if self._parts.store.get(instance.id) is None:
            return  # it was removed meanwhile: that is no failure
        before = self._failures.get(instance.id)
        count = before.count + 1 if before else 1
        pause = waking.pause(count)
        self._failures[instance.id] = Failure(str(error), count, self._now() + pause)
        log.warning("%s could not be woken: %s", instance.name, error)
        self._lifecycle.tell("wake-failed", instance, error=str(error), pause=f"{pause:g}")

    # The door

    async def _let_in(self, instance: Instance) -> None:
        address = self._lifecycle.connections.endpoint(instance).address
        await asyncio.gather(*(self._open(instance, address, port) for port in instance.spec.ports))

    async def _open(self, instance: Instance, address: str, port: Port) -> None:
        """Let packets for the port through when somebody listens there, or nobody will."""
        until = self._now() + PATIENCE
        while port.protocol == "tcp" and self._now() < until:
            if await self._listens(address, port.container_port):
                break
            await asyncio.sleep(LOOK)
        current = self._parts.store.get(instance.id)
        if current is not None and current.state in (State.RUNNING, State.PAUSED):
            await self._parts.network.ports.open(instance.id, port)

    def _stop_opening(self, instance_id: str) -> None:
        if task := self._opening.pop(instance_id, None):
            task.cancel()
