"""How an instance comes up, is watched, ends, and goes: the steps behind the verbs.

The row is written before the first resource is made and removed after the last is
gone. Every step back (`release`) is idempotent, so that a crash between any two
steps is finished by the next daemon (`reconcile`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from sublet.domain import health
from sublet.domain.change import settled
from sublet.domain.errors import NoSuchImage, NoSuchInstance, WrongState
from sublet.domain.health import Health
from sublet.domain.image import Image
from sublet.domain.instance import HELD, LIVE, Instance, State, check_transition
from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec
from sublet.drivers import files, processes, trace
from sublet.drivers.container.streams import Streams
from sublet.drivers.container.supervisor import Started
from sublet.drivers.vm.memory import MemoryImage
from sublet.engine.connections import Connections
from sublet.engine.containers import ContainerStarts
from sublet.engine.exits import Exits
from sublet.engine.locks import Locks
from sublet.engine.machines import MachineStarts
from sublet.engine.observer import Observer
from sublet.engine.parts import Parts
from sublet.engine.releases import Releases
from sublet.engine.visits import Visits
from sublet.engine.volumes import Volumes

log = logging.getLogger(__name__)

LOST = 137
"""Exit code of an instance whose supervisor left none: it was killed, or the host went down."""


class Lifecycle:
    """The life of every instance of one daemon."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.locks = Locks()
        self.connections = Connections(parts)
        self.volumes = Volumes(parts, self.locks)
        self.machines = MachineStarts(parts, self.connections, self.volumes)
        self.containers = ContainerStarts(parts, self.connections, self.volumes)
        self.releases = Releases(parts)
        self.visits = Visits(parts.tasks)
        self.observers: list[Observer] = []
        self.updated: list[Callable[[Instance], None]] = []
        """Who is told when what was asked of an instance has changed."""
        self.exits = Exits()
        self.lost: Callable[[Instance], float] = lambda instance: time.time()
        """When an instance ended of which nothing tells, in seconds since the epoch."""
        self.permit: Callable[[InstanceSpec, str], None] = lambda spec, instance_id: None
        """Raises where one may not start, whatever room there is."""
        self.restarting: set[str] = set()
        """Instances that are stopped only to be started again: `--rm` does not delete them."""

    # Up

    async def launch(
        self, instance: Instance, *, attach: bool = False, memory: MemoryImage | None = None
    ) -> Streams | None:
        """Bring a pending instance up; with `attach`, its streams from the first byte on, with
        `memory` a VM as another one that goes on from there.

        If that fails, or is cancelled, what was made is taken away again; an instance
        that is not kept is removed.
        """
        async with self.locks.hold(instance.id, "start"):
            instance = self._still_pending(instance)
            try:
                instance, streams = await self._bring_up(instance, attach, memory)
            except BaseExceptionGroup as group:
                await self.anyway(self._abandon(instance, group.exceptions[0]))
                raise group.exceptions[0] from None
            except BaseException as error:
                await self.anyway(self._abandon(instance, error))
                raise
            self.watch(instance)
        return streams

    def current(self, instance: Instance) -> Instance:
        """The row as it is now: others may have had the lock before. Raises NoSuchInstance."""
        current = self.parts.store.get(instance.id)
        if current is None:
            raise NoSuchInstance(f"The instance {instance.name} is gone.")
        return current

    def _still_pending(self, instance: Instance) -> Instance:
        current = self.current(instance)
        if current.state is not State.PENDING:
            raise WrongState(f"{current.name} is {current.state}; its start was called off.")
        return current

    async def resume(
        self, instance: Instance, memory: MemoryImage, begun: Callable[[], None]
    ) -> Instance:
        """Let a hibernated VM go on from its memory; the row as it is then. `begun` is called
        before it does. To be watched."""
        image = self.image(instance)
        started, ports = await self.machines.start(instance, image, memory=memory, begun=begun)
        return self._up(instance, image, started, ports)

    def alive(self, instance: Instance) -> bool:
        """Whether its supervisor runs."""
        return processes.alive(instance.supervisor, instance.supervisor_start)

    async def _bring_up(
        self, instance: Instance, attach: bool, memory: MemoryImage | None
    ) -> tuple[Instance, Streams | None]:
        image = self.image(instance)
        if instance.spec.vm:
            started, ports = await self.machines.start(
                instance, image, attach=attach, memory=memory, fork=True
            )
        else:
            started, ports = await self.containers.start(instance, image, attach=attach)
        return self._up(instance, image, started, ports), started.streams

    def _up(
        self, instance: Instance, image: Image, started: Started, ports: tuple[Port, ...]
    ) -> Instance:
        """The row of an instance that has just been started."""
        check = health.effective(instance.spec.health, image.config.healthcheck)
        instance = replace(
            instance,
            spec=replace(instance.spec, ports=ports),
            pid=started.pid,
            pid_start=processes.start_time(started.pid),
            supervisor=started.supervisor,
            supervisor_start=processes.start_time(started.supervisor),
            started=time.time(),
            exit_code=None,
            kept=True,
            health=Health.STARTING if check else Health.NONE,
        )
        return self.move(instance, State.RUNNING)

    def image(self, instance: Instance) -> Image:
        """The image of an instance. Raises NoSuchImage."""
        image = self.parts.image_store.get(instance.digest)
        if image is None:
            raise NoSuchImage(f"The image of {instance.name} is not on this host any more.")
        return image

    async def _abandon(self, instance: Instance, error: BaseException) -> None:
        log.info("start of %s failed: %s", instance.name, error)
        await self.releases.release(instance.id)
        if instance.kept:
            self.move(instance, State.STOPPED, reason=str(error))
        else:
            await self._delete(instance, volumes=True)

    # Down

    def watch(self, instance: Instance) -> None:
        """Wait in the background for the instance's end, and finish it."""
        self.exits.expect(instance.id)
        self.parts.tasks.start(f"watch {instance.name}", self._watch(instance))
        for observer in self.observers:
            observer.up(instance)

    async def _watch(self, instance: Instance) -> None:
        await processes.ended(instance.supervisor, instance.supervisor_start)
        code = self.parts.runner(instance).exit_code(instance.id)
        try:
            with trace.request("end", instance.id):
                await self.visits.end(instance.id)  # first: one of them may have the lock
                async with self.locks.hold(instance.id, "exit"):
                    if not self._woken(instance):
                        await self.finish(instance.id, code)
        except Exception:  # whatever it is: who waits for the end must hear of it
            log.exception("%s has ended but is not cleaned up", instance.name)
        if not self._asleep(instance.id) and not self._woken(instance):
            self.exits.end(instance.id, LOST if code is None else code)

    def _asleep(self, instance_id: str) -> bool:
        """Whether it goes on some day: that was not its end."""
        instance = self.parts.store.get(instance_id)
        return instance is not None and instance.state in (State.HIBERNATING, State.HIBERNATED)

    def _woken(self, watched: Instance) -> bool:
        """Whether it has been hibernated and goes on in another machine already."""
        instance = self.parts.store.get(watched.id)
        return instance is not None and instance.supervisor not in (0, watched.supervisor)

    async def finish(self, instance_id: str, code: int | None) -> None:
        """Clean up after an instance that has ended, with the exit code if one is known."""
        instance = self.parts.store.get(instance_id)
        if instance and instance.state in LIVE and code is not None:  # `release` takes its file
            end = self._end(instance)
            self.parts.store.update(replace(instance, exit_code=code, finished=end))
        told = self.parts.machines.reason(instance_id)
        await self.releases.release(instance_id)
        instance = self.parts.store.get(instance_id)
        if instance is None or instance.state not in LIVE:
            return
        reason = told or ("" if code is not None else "its supervisor ended without an exit code")
        finished = instance.finished
        if code is None:
            code, finished = LOST, self.lost(instance)
        instance = replace(instance, exit_code=code, finished=finished)
        with trace.step("row"):
            instance = self.move(instance, State.STOPPED, reason=reason)
        if instance.spec.remove and instance.id not in self.restarting:
            await self._delete(self.move(instance, State.SHUTTING_DOWN), volumes=True)
            return
        for observer in self.observers:
            observer.ended(instance)

    def _end(self, instance: Instance) -> float:
        """When it ended, in seconds since the epoch, as an earlier try found, or its file tells."""
        if instance.exit_code is not None:
            return instance.finished
        told = self.parts.runner(instance).exit_time(instance.id)
        now = time.time()
        if told is None or told > now:
            return now
        early = instance.started - told < 1.0  # before its row said that it had started
        return max(told, instance.started) if early else told

    async def remove(self, instance: Instance, *, volumes: bool = False) -> None:
        """Take away an instance that has no process any more, and all that it had; with
        `volumes`, those without a name too."""
        if instance.state is State.HIBERNATED:
            self.exits.end(instance.id, LOST)
        if instance.state is not State.SHUTTING_DOWN:  # it is where an earlier try ended early
            with trace.step("row"):
                instance = self.move(instance, State.SHUTTING_DOWN)
        await self.complete_removal(instance, volumes=volumes)

    async def complete_removal(self, instance: Instance, *, volumes: bool = False) -> None:
        """The rest of a removal, also of one that a crash interrupted."""
        await self.releases.release(instance.id)
        await self._delete(instance, volumes=volumes or instance.spec.remove)

    async def _delete(self, instance: Instance, *, volumes: bool) -> None:
        with trace.step("delete layer"):
            await self.parts.runner(instance).delete(instance.id)
        await self.volumes.remove_anonymous(instance, copies=not volumes)
        for snapshot in self.parts.snapshot_store.of(instance.id):
            await files.remove(self.parts.containers.pool.snapshot(snapshot.id))
            self.parts.snapshot_store.delete(snapshot.id)
        with trace.step("forget"):
            self.parts.store.delete(instance.id)
        for observer in self.observers:
            observer.gone(instance.id)
        self.tell("terminated", instance)

    # State

    def move(self, instance: Instance, state: State, *, reason: str = "") -> Instance:
        """Write the instance's row in its new state, and tell."""
        check_transition(instance.name, instance.state, state)
        if state not in HELD:
            instance = replace(instance, pid=0, pid_start=0, supervisor=0, supervisor_start=0)
        if state is State.STOPPED:
            instance = settled(instance)
        instance = replace(instance, state=state, reason=reason)
        self.parts.store.update(instance)
        code = {} if instance.exit_code is None else {"exit_code": str(instance.exit_code)}
        self.tell(str(state), instance, **code)
        return instance

    def tell(self, what: str, instance: Instance, **detail: str) -> None:
        """Publish `instance.<what>`, with the instance's name, image and labels."""
        about = {"name": instance.name, "image": instance.image, **detail}
        about |= {f"label:{key}": value for key, value in instance.spec.labels.items()}
        self.parts.events.publish(f"instance.{what}", instance.id, **about)

    async def anyway(self, work: Coroutine[Any, Any, None]) -> None:
        """Finish `work` even if the caller is cancelled meanwhile."""
        await asyncio.shield(self.parts.tasks.start("clean-up", work))
