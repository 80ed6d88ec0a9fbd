"""Verbs on instances: run, list, inspect, stop, kill, wait, remove, logs, exec, export."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import AsyncIterator

from sublet.domain import capacity, slots
from sublet.domain.errors import (
    InvalidArgument,
    NoSuchImage,
    NoSuchInstance,
    WrongState,
)
from sublet.domain.image import ImageConfig
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.names import friendly_name
from sublet.domain.signals import signal_number
from sublet.domain.spec import (
    ExecSpec,
    InstanceSpec,
    Market,
    check_exec,
    check_spec,
)
from sublet.drivers import processes, trace
from sublet.drivers.container import archive, logs
from sublet.drivers.container.execution import Execution, execute
from sublet.drivers.container.streams import Streams
from sublet.engine import plan
from sublet.engine.images import Images
from sublet.engine.lifecycle import LOST, Lifecycle

STOP_TIMEOUT = 10.0
KILL_DEADLINE = 30.0


class Instances:
    """What can be done with the instances of one daemon."""

    def __init__(self, lifecycle: Lifecycle, images: Images) -> None:
        self.lifecycle = lifecycle
        self.parts = lifecycle.parts
        self.images = images
        self._slot = 0

    def list(self, *, all: bool = False) -> list[Instance]:
        """The running instances, or all; the newest first."""
        found = [i for i in self.parts.store.all() if all or i.state in LIVE]
        return found[::-1]

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

    async def run(
        self, spec: InstanceSpec, *, attach: bool = False
    ) -> tuple[Instance, Streams | None]:
        """Make an instance and start it; with `attach`, also its streams from the first byte.

        Raises NoSuchImage unless the image is on this host (the caller fetches it),
        NameInUse, PortInUse, InsufficientCapacity, CommandNotFound and the like.
        """
        with trace.request("start"):
            return await self._run(spec, attach)

    async def _run(self, spec: InstanceSpec, attach: bool) -> tuple[Instance, Streams | None]:
        spec = spec.with_defaults(self.parts.config.default_size)
        check_spec(spec)
        image = self.images.claim(spec.image)
        if image is None:
            raise NoSuchImage(f"The image '{spec.image}' is not on this host.")
        with trace.step("admit"):
            capacity.admit(spec.size, self.free())
            instance = self._new(spec, image.digest)
        trace.about(instance.id)
        plan.arguments(instance, image.config)
        with trace.step("row"):
            self.parts.store.add(instance)
            self.parts.events.publish("instance.pending", instance.id, name=instance.name)
        streams = await self.lifecycle.launch(instance, attach=attach)
        return self.parts.store.get(instance.id) or instance, streams

    def _new(self, spec: InstanceSpec, digest: str) -> Instance:
        instance_id = secrets.token_hex(6)
        self._slot = slots.following(self._slot, self.parts.store.slots())
        return Instance(
            id=instance_id,
            name=spec.name or friendly_name(instance_id),
            image=spec.image,
            digest=digest,
            spec=spec,
            slot=self._slot,
            state=State.PENDING,
            created=time.time(),
        )

    def warnings(self, instance: Instance) -> tuple[str, ...]:
        """What the instance was asked to have and does not get, a sentence each."""
        spec = instance.spec
        lacking = self.parts.containers.rights.lacking(spec.cap_add, spec.cap_drop)
        return tuple(f"{name} is left out: this host does not have it itself." for name in lacking)

    def sold(self, market: Market) -> capacity.Amount:
        """What the instances of a market hold."""
        return capacity.sold(self.parts.store.all(), market)

    def free(self) -> capacity.Amount:
        """What can still be sold."""
        held = self.sold(Market.ON_DEMAND) + self.sold(Market.SPOT)
        return self.parts.rentable - held

    def kill(self, text: str, number: int) -> None:
        """Send a signal to the instance's first process."""
        instance = self._live(text)
        processes.send(instance.pid, instance.pid_start, number)

    def _live(self, text: str) -> Instance:
        instance = self.get(text)
        if instance.state not in LIVE:
            raise WrongState(f"{instance.name} is {instance.state}, not running.")
        return instance

    async def _started(self, text: str) -> Instance:
        """The instance, once it is not about to start any more: it runs then, or is gone."""
        instance = self.get(text)
        if instance.state is State.PENDING:
            async with self.lifecycle.locks.hold(instance.id, "start"):
                instance = self.get(instance.id)
        return instance

    async def stop(self, text: str, timeout: float | None = None) -> None:
        """Ask the instance to end; kill it after `timeout` seconds. A stopped one is fine."""
        instance = await self._started(text)
        if instance.state not in LIVE:
            return
        if timeout is None:
            timeout = instance.spec.stop_timeout
        if instance.state is State.RUNNING:
            instance = self.lifecycle.move(instance, State.STOPPING)
        processes.send(instance.pid, instance.pid_start, self._stop_signal(instance))
        await self._ended(instance, STOP_TIMEOUT if timeout is None else timeout)

    def _stop_signal(self, instance: Instance) -> int:
        image = self.parts.image_store.get(instance.digest)
        name = instance.spec.stop_signal or (image.config.stop_signal if image else "")
        try:
            return signal_number(name or "SIGTERM")
        except InvalidArgument:
            return signal.SIGTERM  # an image's nonsense must not make it unstoppable

    async def _ended(self, instance: Instance, timeout: float) -> None:
        """Wait for the end, and after `timeout` seconds enforce it."""
        future = self.lifecycle.exit_future(instance.id)
        if future is None:
            return
        done, _ = await asyncio.wait([future], timeout=timeout)
        if not done:
            processes.send(instance.pid, instance.pid_start, signal.SIGKILL)
            done, _ = await asyncio.wait([future], timeout=KILL_DEADLINE)
        if not done:
            raise WrongState(
                f"{instance.name} did not end within {KILL_DEADLINE:g} s of SIGKILL.",
                hint="Its processes may hang in the kernel; `sublet inspect` gives the pid.",
            )

    async def wait(self, text: str) -> int:
        """The exit code, when the instance has ended and is cleaned up."""
        future = self.lifecycle.exit_future(text)
        if future is None:
            instance = await self._started(text)
            future = self.lifecycle.exit_future(instance.id)
            if future is None or instance.state not in LIVE:
                return LOST if instance.exit_code is None else instance.exit_code
        return await asyncio.shield(future)

    async def remove(self, text: str, *, force: bool = False) -> None:
        """Delete the instance and everything that it had; a running one only with `force`."""
        instance = self.get(text)
        if instance.state in LIVE or instance.state is State.PENDING:
            if not force:
                raise WrongState(
                    f"{instance.name} is {instance.state}.",
                    hint=f"Stop it first (`sublet stop {instance.name}`), or use `sublet rm -f`.",
                )
            processes.send(instance.pid, instance.pid_start, signal.SIGKILL)
            await self._ended(instance, 0)
        async with self.lifecycle.locks.hold(instance.id, "remove"):
            current = self.parts.store.get(instance.id)
            if current is not None:
                with trace.request("remove", instance.id):
                    await self.lifecycle.remove(current)

    def logs(self, text: str, *, follow: bool) -> AsyncIterator[logs.Entry]:
        """What the instance wrote, and with `follow` what it goes on to write."""
        instance = self.get(text)

        def following() -> bool:
            current = self.parts.store.get(instance.id) if follow else None
            return current is not None and current.state in LIVE

        return logs.read(self.parts.containers.places(instance.id).log, following)

    async def execute(self, text: str, spec: ExecSpec) -> Execution:
        """Start a further process in a running instance; `env` adds to the instance's own."""
        check_exec(spec)
        instance = self._live(text)
        image = self.parts.image_store.get(instance.digest)
        config = image.config if image else ImageConfig()
        process = plan.process(
            instance,
            config,
            spec.command,
            env=spec.env,
            working_dir=spec.working_dir,
            tty=spec.tty,
        )
        user = spec.user or instance.spec.user or config.user
        base = self.parts.network.uid_base(instance.slot)
        return await execute(self.parts.containers, instance.id, process, user, base)

    @contextlib.asynccontextmanager
    async def export(self, text: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The instance's whole file system as a tar stream, with ids as seen inside."""
        instance = self.get(text)
        async with self.lifecycle.mounted(instance.id, "export"):
            at = self.parts.containers.places(instance.id)
            async with archive.packed(at) as stream:
                yield stream
