"""Verbs on instances: found, made, started; what else is done with them is next door."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from sublet.domain import capacity, slots
from sublet.domain.change import Change, changed, next_size
from sublet.domain.errors import (
    InsufficientCapacity,
    InvalidArgument,
    NoSuchImage,
    NoSuchInstance,
    PriceTooLow,
    WrongState,
)
from sublet.domain.instance import LIVE, Instance, State, not_running
from sublet.domain.names import friendly_name
from sublet.domain.progress import Report, silent
from sublet.domain.selection import parse
from sublet.domain.spec import ExecSpec, InstanceSpec, Market, check_again, check_spec
from sublet.domain.spot import RequestState
from sublet.domain.waiting import Condition, reached
from sublet.drivers import listing, trace
from sublet.drivers.container import logs
from sublet.drivers.container.streams import Streams
from sublet.drivers.runner import Execution
from sublet.engine import altering, ending, hibernation, inside, plan, reading, seeds
from sublet.engine.images import Images
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.market import SpotMarket
from sublet.engine.reading import Window


class Instances:
    """What can be done with the instances of one daemon."""

    def __init__(self, lifecycle: Lifecycle, images: Images, market: SpotMarket) -> None:
        self.lifecycle = lifecycle
        self.parts = lifecycle.parts
        self.images = images
        self.market = market
        self.notes: list[Callable[[Instance], Iterable[str]]] = []
        """What else is told of an instance, a sentence each."""
        self.leased: Callable[[str], None] = lambda lease: None
        """Raises where no instance may be made with that lease."""
        self._slot = 0

    # Finding

    def list(self, *, all: bool = False) -> list[Instance]:
        """The running instances but for those that wait in a pool, or all; the newest first."""
        rows = self.parts.store.all()
        found = [i for i in rows if all or (i.state in LIVE and not i.pool)]
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
        return self.parts.store.ledger.sold(market)

    def free(self) -> capacity.Amount:
        """What can still be sold."""
        return self.market.free()

    def warnings(self, instance: Instance) -> tuple[str, ...]:
        """What the instance was asked to have and does not get, a sentence each."""
        spec = instance.spec
        lacking = self.parts.containers.rights.lacking(spec.cap_add, spec.cap_drop)
        later = next_size(instance)
        notes: list[str] = []
        if later:
            notes.append(f"{instance.name} gets {later} when it starts again.")
        request = self.market.requests.of(instance.id)
        if request and request.wanted and request.state is RequestState.OPEN:
            notes.append(f"{instance.name} does not run yet: {request.id} is {request.status}.")
        notes += [text for found in self.notes for text in found(instance)]
        notes += [f"{name} is left out: this host does not have it itself." for name in lacking]
        return tuple(notes)

    # Making and starting

    async def run(
        self,
        spec: InstanceSpec,
        *,
        attach: bool = False,
        wait: bool = True,
        report: Report = silent,
        pool: str = "",
    ) -> tuple[Instance, Streams | None]:
        """Make an instance and start it; with `attach`, also its streams from the first byte; in
        a `pool`, by its id.

        One on demand that does not fit waits for the room of spot instances, unless told not to
        (`wait`); `report` is told what for. A persistent spot instance for which there is no room
        is made, and started when there is. Raises NoSuchImage unless the image is on this host
        (the caller fetches it), NameInUse, PortInUse, InsufficientCapacity, PriceTooLow,
        CommandNotFound and the like.
        """
        with trace.request("start"):
            spec = self.complete(spec)
            with trace.step("admit"):
                self.lifecycle.permit(spec, "")
                try:
                    await self.market.admit(spec, wait=wait, report=report)
                except (InsufficientCapacity, PriceTooLow) as error:
                    if attach or not self.market.postpones(spec):
                        raise
                    instance = self._add(spec, State.STOPPED)
                    self.market.requests.lacks(instance.id, error)
                    return instance, None
            instance = self._add(spec, State.PENDING, pool)
            streams = await self.lifecycle.launch(instance, attach=attach)
            return self.parts.store.get(instance.id) or instance, streams

    def create(self, spec: InstanceSpec) -> Instance:
        """Make an instance that `start` starts. Raises as `run` does."""
        return self._add(self.complete(spec), State.STOPPED)

    def complete(self, spec: InstanceSpec) -> InstanceSpec:
        """The request with this host's defaults. Raises InvalidArgument."""
        spec = spec.with_defaults(self.parts.config.size_of(spec.size_name))
        check_spec(spec)
        return spec

    def _add(self, spec: InstanceSpec, state: State, pool: str = "") -> Instance:
        image = self.images.claim(spec.image)
        if image is None:
            raise NoSuchImage(f"The image '{spec.image}' is not on this host.")
        plan.check_image(spec, image)
        spec = self.lifecycle.connections.settle(spec)
        spec = self.lifecycle.volumes.named(spec, image.config)
        instance = replace(self._record(spec, image.digest, state), pool=pool)
        plan.arguments(instance, image.config)
        with seeds.kept(self.parts.config.root, instance) as instance:
            self._keep(instance)
        return instance

    def add_fork(
        self, spec: InstanceSpec, digest: str, *, running: bool, admitted: bool = False
    ) -> Instance:
        """The row of an instance that gets its files from another; to be launched if `running`,
        for which it may be `admitted` already. Until then it is pending, and gone after a crash.
        Raises as `run` does."""
        check_again(spec)
        if running:
            self.lifecycle.permit(spec, "")
            if not admitted:
                self.market.admit_now(spec)
        instance = self._record(self.lifecycle.connections.settle(spec), digest, State.PENDING)
        instance = replace(instance, wanted=running)
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
        self.leased(instance.spec.lease)
        with trace.step("row"):
            self.parts.store.add(instance)
            self.lifecycle.connections.join(instance)
            self.lifecycle.tell("created" if instance.kept else "pending", instance)

    async def start(
        self, text: str, *, attach: bool = False, wait: bool = True, report: Report = silent
    ) -> tuple[Instance, Streams | None]:
        """Start an instance that is stopped. One that runs is fine, unless it is to be attached
        to: its first bytes are gone. Waits and raises as `run` does; the instance stays then."""
        instance = await self._settled(text)
        if instance.state in LIVE:
            self._awake(instance.id)
            return instance, self.attach(instance.id) if attach else None
        if instance.state is State.HIBERNATED:
            await self.wake(instance.id, wait=wait, report=report)
            return self.get(instance.id), self.attach(instance.id) if attach else None
        if instance.state is not State.STOPPED:
            raise WrongState(f"{instance.name} is {instance.state}; it cannot be started.")
        with trace.request("start", instance.id):
            self.lifecycle.permit(instance.spec, instance.id)
            instance = await self._admitted(instance, wait, report)
            instance = replace(instance, kept=True, wanted=True, restarts=0)
            instance = self.lifecycle.move(instance, State.PENDING)
            streams = await self.lifecycle.launch(instance, attach=attach)
            return self.parts.store.get(instance.id) or instance, streams

    async def _admitted(self, instance: Instance, wait: bool, report: Report) -> Instance:
        """The row of one that is stopped, when there is room for it: for the size that it has by
        then."""
        while True:
            asked = instance.spec
            await self.market.admit(asked, key=instance.id, wait=wait, report=report)
            instance = self._still_stopped(instance)
            if instance.spec.size == asked.size:
                return instance

    def _still_stopped(self, instance: Instance) -> Instance:
        """The row: it may have waited long for its room."""
        current = self.lifecycle.current(instance)
        if current.state is not State.STOPPED:
            raise WrongState(f"{current.name} is {current.state}; somebody else was faster.")
        return current

    async def restart(self, text: str, timeout: float | None = None) -> None:
        """Stop the instance, if it runs, and start it."""
        instance = await self._settled(text)
        self.lifecycle.restarting.add(instance.id)
        try:
            await self.stop(instance.id, timeout)
            await self.start(instance.id)
        finally:
            self.lifecycle.restarting.discard(instance.id)
            self.market.claims.drop(instance.id)

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
            self.market.requests.unwanted(instance.id)

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

    async def wake(self, text: str, *, wait: bool = True, report: Report = silent) -> None:
        """Let a hibernated VM go on where it was. Waits and raises as `run` does."""
        instance = await self._settled(text)
        if instance.state is not State.HIBERNATED:
            await hibernation.wake(self.lifecycle, instance)
            return
        self.lifecycle.permit(instance.spec, instance.id)
        await self.market.admit(instance.spec, key=instance.id, wait=wait, report=report)
        with self.market.kept(instance):
            await hibernation.wake(self.lifecycle, instance)

    async def rename(self, text: str, name: str) -> None:
        """Give the instance another name."""
        await altering.rename(self.lifecycle, self.get(text), name)

    async def update(
        self, text: str, change: Change, *, wait: bool = True, report: Report = silent
    ) -> Instance:
        """Change limits, restart policy or time to live; of a running instance too. One on demand
        that is to become larger than there is room for waits and raises as `run` does."""
        instance = await self._settled(text)
        spec = changed(instance.spec, change)
        more = await altering.room(self.lifecycle, instance, spec, change)
        async with self.market.more(spec, more, wait=wait, report=report) as free:
            await altering.update(self.lifecycle, instance, change, free)
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
