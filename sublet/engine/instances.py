"""Verbs on instances: found, made, started; what else is done with them is next door."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from sublet.domain import capacity, slots
from sublet.domain.change import Change, next_size
from sublet.domain.errors import InvalidArgument, NoSuchImage, NoSuchInstance, WrongState
from sublet.domain.instance import LIVE, Instance, State, not_running
from sublet.domain.names import friendly_name
from sublet.domain.selection import parse
from sublet.domain.spec import ExecSpec, InstanceSpec, Market, check_again, check_spec
from sublet.domain.waiting import Condition, reached
from sublet.drivers import listing, trace
from sublet.drivers.container import logs
from sublet.drivers.container.streams import Streams
from sublet.drivers.runner import Execution
from sublet.engine import altering, ending, hibernation, inside, plan, reading, seeds
from sublet.engine.images import Images
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.reading import Window


class Instances:
    """What can be done with the instances of one daemon."""

    def __init__(self, lifecycle: Lifecycle, images: Images) -> None:
        self.lifecycle = lifecycle
        self.parts = lifecycle.parts
        self.images = images
        self._slot = 0

    # Finding

    def list(self, *, all: bool = False) -> list[Instance]:
        """The running instances, or all; the newest first."""
        found = [i for i in self.parts.store.all() if all or i.state in LIVE]
        return found[::-1]

    def digests(self, leaving: frozenset[str] = frozenset()) -> set[str]:
        """The images that instances are made of, but for those that are `leaving`."""
        return {i.digest for i in self.parts.store.all() if i.id not in leaving}

    def get(self, text: str) -> Instance:
        """The instance that a name, an id or the beginning of an id names."""
        found = self.parts.store.find(text)
        if len(found) > 1:
            raise InvalidArgument(
                f"'{text}' begins the ids of {len(found)} instances.", hint="Give more of the id."
            )
        if not found:
            raise NoSuchInstance(f"There is no instance '{text}'.")
        return found[0]

    def select(self, filters: Iterable[str], *, all: bool, last: int = 0) -> Sequence[Instance]:
        """As `list`, those that `filters` mean; the newest `last`, whatever their state. Raises
        InvalidArgument."""
        selection = parse(filters, time.time(), lambda text: self.get(text).created)
        rows = self.list(all=all or bool(last) or selection.shows_stopped)
        images = {image.digest: image for image in self.images.all()} if selection.values else {}
        found = [row for row in rows if selection.matches(row, images.get(row.digest))]
        return found[:last] if last else found

    def _live(self, text: str) -> Instance:
        instance = self.get(text)
        if instance.state not in LIVE:
            raise not_running(instance.name, instance.state)
        return instance

    def _awake(self, text: str) -> Instance:
        instance = self._live(text)
        if instance.state is State.PAUSED:
            raise WrongState(
                f"{instance.name} is paused.", hint=f"`sublet unpause {instance.name}` first."
            )
        return instance

    async def _settled(self, text: str) -> Instance:
        """The instance, once it is not about to start any more: it runs then, or does not."""
        instance = self.get(text)
        if instance.state is State.PENDING:
            async with self.lifecycle.locks.hold(instance.id, "start"):
                instance = self.get(instance.id)
        return instance

    def sold(self, market: Market) -> capacity.Amount:
        """What the instances of a market hold."""
        return capacity.sold(self.parts.store.all(), market)

    def free(self) -> capacity.Amount:
        """What can still be sold."""
        held = self.sold(Market.ON_DEMAND) + self.sold(Market.SPOT)
        return self.parts.rentable - held

    def warnings(self, instance: Instance) -> tuple[str, ...]:
        """What the instance was asked to have and does not get, a sentence each."""
        spec = instance.spec
        lacking = self.parts.containers.rights.lacking(spec.cap_add, spec.cap_drop)
        later = next_size(instance)
        notes = (f"{instance.name} gets {later} when it starts again.",) if later else ()
        return notes + tuple(
            f"{name} is left out: this host does not have it itself." for name in lacking
        )

    def admit(self, spec: InstanceSpec) -> None:
        """Raises InsufficientCapacity where the host has no room for it."""
        capacity.admit(spec.size, self.free())

    # Making and starting

    async def run(
        self, spec: InstanceSpec, *, attach: bool = False
    ) -> tuple[Instance, Streams | None]:
        """Make an instance and start it; with `attach`, also its streams from the first byte.

        Raises NoSuchImage unless the image is on this host (the caller fetches it),
        NameInUse, PortInUse, InsufficientCapacity, CommandNotFound and the like.
        """
        with trace.request("start"):
            spec = spec.with_defaults(self.parts.config.default_size)
            check_spec(spec)
            with trace.step("admit"):
                self.admit(spec)
            instance = self._add(spec, State.PENDING)
            streams = await self.lifecycle.launch(instance, attach=attach)
            return self.parts.store.get(instance.id) or instance, streams

    def create(self, spec: InstanceSpec) -> Instance:
        """Make an instance that `start` starts. Raises as `run` does."""
        spec = spec.with_defaults(self.parts.config.default_size)
        check_spec(spec)
        return self._add(spec, State.STOPPED)

    def _add(self, spec: InstanceSpec, state: State) -> Instance:
        image = self.images.claim(spec.image)
        if image is None:
            raise NoSuchImage(f"The image '{spec.image}' is not on this host.")
        plan.check_image(spec, image)
        spec = self.lifecycle.connections.settle(spec)
        spec = self.lifecycle.volumes.named(spec, image.config)
        instance = self._record(spec, image.digest, state)
        plan.arguments(instance, image.config)
        with seeds.kept(self.parts.config.root, instance) as instance:
            self._keep(instance)
        return instance

    def add_fork(self, spec: InstanceSpec, digest: str, *, running: bool) -> Instance:
        """The row of an instance that gets its files from another; to be launched if `running`.
        Until then it is pending, and gone after a crash. Raises as `run` does."""
        check_again(spec)
        if running:
            capacity.admit(spec.size, self.free())
        instance = self._record(self.lifecycle.connections.settle(spec), digest, State.PENDING)
        self._keep(instance)
        return instance

    def _record(self, spec: InstanceSpec, digest: str, state: State) -> Instance:
        instance_id = secrets.token_hex(6)
        self._slot = slots.following(self._slot, self.parts.store.slots())
        return Instance(
            id=instance_id,
            name=spec.name or friendly_name(instance_id),
            image=spec.image,
            digest=digest,
            spec=spec,
            slot=self._slot,
            state=state,
            created=time.time(),
            kept=state is State.STOPPED,
            wanted=state is State.PENDING,
        )

    def _keep(self, instance: Instance) -> None:
        trace.about(instance.id)
        with trace.step("row"):
            self.parts.store.add(instance)
            self.lifecycle.connections.join(instance)
            self.lifecycle.tell("created" if instance.kept else "pending", instance)

    async def start(self, text: str, *, attach: bool = False) -> tuple[Instance, Streams | None]:
        """Start an instance that is stopped. One that runs is fine, unless it is to be attached
        to: its first bytes are gone. Raises as `run` does; the instance stays then."""
        instance = await self._settled(text)
        if instance.state in LIVE:
            self._awake(instance.id)
            return instance, self.attach(instance.id) if attach else None
        if instance.state is State.HIBERNATED:
            await self.wake(instance.id)
            return self.get(instance.id), self.attach(instance.id) if attach else None
        if instance.state is not State.STOPPED:
            raise WrongState(f"{instance.name} is {instance.state}; it cannot be started.")
        with trace.request("start", instance.id):
            self.admit(instance.spec)
            instance = replace(instance, kept=True, wanted=True, restarts=0)
            instance = self.lifecycle.move(instance, State.PENDING)
            streams = await self.lifecycle.launch(instance, attach=attach)
            return self.parts.store.get(instance.id) or instance, streams

    async def restart(self, text: str, timeout: float | None = None) -> None:
        """Stop the instance, if it runs, and start it."""
        instance = await self._settled(text)
        self.lifecycle.restarting.add(instance.id)
        try:
            await self.stop(instance.id, timeout)
            await self.start(instance.id)
        finally:
            self.lifecycle.restarting.discard(instance.id)

    # Ending

    async def kill(self, text: str, number: int) -> None:
        """Send a signal to the instance's first process."""
        await ending.kill(self.lifecycle, self._live(text), number)

    async def stop(self, text: str, timeout: float | None = None) -> None:
        """Ask the instance to end; kill it after `timeout` seconds. A stopped one is fine."""
        instance = await self._settled(text)
        if instance.state in LIVE:
            await ending.stop(self.lifecycle, instance, timeout)
        elif instance.state in (State.HIBERNATING, State.HIBERNATED):
            await self._stop_asleep(instance, timeout)
        else:
            ending.unwanted(self.lifecycle, instance)

    async def _stop_asleep(self, instance: Instance, timeout: float | None) -> None:
        """Drop its memory; stop it where somebody else had the lock before, and it runs."""
        async with self.lifecycle.locks.hold(instance.id, "stop"):
            current = self.lifecycle.current(instance)
            if current.state is State.HIBERNATED:
                await hibernation.forget(self.lifecycle, current)
        if current.state in LIVE:
            await ending.stop(self.lifecycle, current, timeout)

    async def wait(self, text: str) -> int:
        """The exit code, when the instance has ended and is cleaned up."""
        future = self.lifecycle.exits.get(text)
        if future is None or future.done():
            try:
                instance = await self._settled(text)
            except NoSuchInstance:
                if future is None:
                    raise
                return future.result()
            future = self.lifecycle.exits.get(instance.id)
            asleep = instance.state in (State.HIBERNATING, State.HIBERNATED)
            if future is None or not (asleep or instance.state in LIVE):
                return ending.exit_code(instance)
        return await asyncio.shield(future)

    async def wait_until(self, text: str, condition: Condition) -> int:
        """Wait for `condition`; the exit code where it is the end. Raises NotHealthy."""
        instance = self.get(text)
        with self.parts.events.listen() as queue:
            while not reached(condition, self.parts.store.get(instance.id)):
                await queue.get()
                while not queue.empty():  # of many events, the row tells what they come to
                    queue.get_nowait()
        current = self.parts.store.get(instance.id)
        return ending.exit_code(current) if current else 0

    async def remove(self, text: str, *, force: bool = False, volumes: bool = False) -> None:
        """Delete the instance and everything that it had, with `volumes` its volumes without a
        name as well; a running one only with `force`."""
        await ending.remove(self.lifecycle, self.get(text), force=force, volumes=volumes)

    # Altering

    async def pause(self, text: str) -> None:
        """Freeze all processes of a running instance, until `unpause`."""
        await altering.pause(self.lifecycle, self._live(text))

    async def unpause(self, text: str) -> None:
        """Let a paused instance go on."""
        await altering.unpause(self.lifecycle, self._live(text))

    async def hibernate(self, text: str) -> None:
        """Keep the memory of a running VM on disk, and end it."""
        await hibernation.hibernate(self.lifecycle, await self._settled(text))

    async def wake(self, text: str) -> None:
        """Let a hibernated VM go on where it was."""
        instance = await self._settled(text)
        if instance.state is State.HIBERNATED:
            self.admit(instance.spec)
        await hibernation.wake(self.lifecycle, instance)

    async def rename(self, text: str, name: str) -> None:
        """Give the instance another name."""
        await altering.rename(self.lifecycle, self.get(text), name)

    async def update(self, text: str, change: Change) -> Instance:
        """Change limits, restart policy or time to live; of a running instance too."""
        instance = await self._settled(text)
        await altering.update(self.lifecycle, instance, change, self.free)
        return self.get(instance.id)

    # Inside

    def attach(self, text: str) -> Streams:
        """The streams of a running instance, from now on; others may have them too."""
        return inside.attach(self.lifecycle, self._awake(text))

    async def execute(self, text: str, spec: ExecSpec) -> Execution:
        """Start a further process in a running instance; `env` adds to the instance's own."""
        return await inside.execute(self.lifecycle, self._awake(text), spec)

    async def processes(self, text: str) -> Sequence[listing.Process]:
        """The processes of a running instance."""
        return await inside.processes(self.lifecycle, self._live(text))

    def logs(self, text: str, window: Window) -> AsyncIterator[logs.Entry]:
        """What the instance wrote and, if it is followed, goes on to write."""
        return reading.read(self.lifecycle, self.get(text), window)
