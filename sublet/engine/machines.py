"""How a VM comes up: its disks, its cables, and the machine that has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sublet.domain.errors import SubletError, VolumeInUse
from sublet.domain.image import Image
from sublet.domain.instance import Instance
from sublet.domain.machine import DEFAULT_DISK, booted, vcpus
from sublet.domain.mounts import Mount
from sublet.domain.ports import Port
from sublet.domain.spec import LogConfig
from sublet.drivers import diskimage, processes, trace
from sublet.drivers.container.supervisor import Started
from sublet.drivers.network import Endpoint
from sublet.drivers.vm.disks import grow
from sublet.drivers.vm.kernels import Kernel
from sublet.drivers.vm.memory import MemoryImage
from sublet.drivers.vm.plan import Disk, MachinePlan
from sublet.drivers.vm.shape import Shape
from sublet.engine import guests
from sublet.engine.connections import Connections
from sublet.engine.parts import Parts
from sublet.engine.volumes import Volumes

Attached = list[tuple[Mount, Path]]

_LEAVING = 15.0
"""Seconds that a visited machine may take to write out and unmount its file systems."""


class MachineStarts:
    """Starts the VMs of one daemon."""

    def __init__(self, parts: Parts, connections: Connections, volumes: Volumes) -> None:
        self._parts, self._connections, self._volumes = parts, connections, volumes

    async def start(
        self,
        instance: Instance,
        image: Image,
        *,
        attach: bool = False,
        memory: MemoryImage | None = None,
        fork: bool = False,
        begun: Callable[[], None] = lambda: None,
    ) -> tuple[Started, tuple[Port, ...]]:
        """Boot the instance's machine, or let it go on from `memory`; `fork`: that was another
        instance's. `begun` is called when all but the machine is there. The started machine, and
        the ports that are published.

        Raises StartFailed, CommandNotFound, CommandNotExecutable, MemoryUnusable and the like.
        """
        parts, endpoint = self._parts, self._connections.endpoint(instance)
        async with AsyncExitStack() as stack:
            taps = await self._taps(endpoint, stack)
            async with asyncio.TaskGroup() as group:
                ports = parts.network.publish(instance.id, endpoint.address, instance.spec.ports)
                publishing = group.create_task(trace.timed("publish", ports))
                group.create_task(trace.timed("names", parts.network.announce(endpoint)))
                await asyncio.sleep(0)  # both begin, and can be cancelled
                with trace.step("disks"):
                    volumes = await self._volumes.disks(instance)
                    disk = await self._disk(instance, image)
            kernel = await parts.machines.kernels.of(memory)
            plan = await self._plan(instance, image, endpoint, volumes, disk, kernel, taps)
            if memory:
                memory.check(plan.shape.text)
            begun()
            identity = plan.guest.identity if memory else None
            started = await parts.machines.start(
                plan, attach=attach, memory=memory, identity=identity, fork=fork
            )
        return started, tuple(publishing.result())

    @asynccontextmanager
    async def visited(
        self, instance: Instance, image: Image, *, volumes: bool
    ) -> AsyncIterator[None]:
        """The machine of an instance that does not run, in which nothing of its own runs: our agent
        mounts its disk, and with `volumes` those, and copies. It has the instance's shape, so that
        its template fits, but hears and says nothing on its network.

        Who calls it has the instance's lock, and releases what it holds afterwards.
        """
        async with AsyncExitStack() as stack:
            endpoint = self._connections.endpoint(instance)
            taps = await self._taps(endpoint, stack)
            attached = await self._plugged(instance, needed=volumes)
            disk = await self._disk(instance, image)
            kernel = await self._parts.machines.kernels.of(None)
            plan = await self._plan(instance, image, endpoint, attached, disk, kernel, taps)
            idle = guests.idle(plan.guest, volumes=volumes)
            plan = replace(plan, guest=idle, log=LogConfig("none"))
            started = await self._parts.machines.start(plan, attach=False)
        supervisor = started.supervisor, processes.start_time(started.supervisor)
        pid = started.pid, processes.start_time(started.pid)
        try:
            yield
        finally:
            await asyncio.shield(self._leave(instance.id, pid, supervisor))

    async def _plugged(self, instance: Instance, *, needed: bool) -> Attached:
        """The volumes' disks: those that are not needed are there only for the template's sake."""
        try:
            return await self._volumes.disks(instance)
        except VolumeInUse:
            if needed:
                raise
            return []

    async def _leave(
        self, instance_id: str, pid: tuple[int, int], supervisor: tuple[int, int]
    ) -> None:
        """Let it unmount what it has, and power off. What does not is killed by `release`."""
        with contextlib.suppress(SubletError, OSError, TimeoutError):
            async with asyncio.timeout(_LEAVING):
                await self._parts.machines.signal(instance_id, *pid, signal.SIGTERM)
                await processes.ended(*supervisor)

    async def _taps(self, endpoint: Endpoint, stack: AsyncExitStack) -> tuple[int, ...]:
        """Descriptors of the taps, in the order of the guest's interfaces; closed with `stack`."""
        found = []
        with trace.step("taps"):
            for place in guests.plugged(endpoint):
                tap = await self._parts.network.attach_tap(
                    endpoint.instance_id,
                    place.address,
                    network=place.network,
                    interface=place.interface,
                    egress=endpoint.egress,
                )
                stack.callback(os.close, tap)
                found.append(tap)
        return tuple(found)

    async def _disk(self, instance: Instance, image: Image) -> Path:
        """The instance's writable disk, made where it is not there."""
        disks, size, wanted = self._parts.machines.disks, instance.spec.disk, image.config.disk
        file = disks.path(instance.id)
        if wanted is None:
            await disks.create(instance.id, size or DEFAULT_DISK)
        elif not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await diskimage.overlay(file, max(wanted.size, size))
        if size > _capacity(file, image):  # asked for since
            grow(file, size)
        return file

    async def _plan(
        self,
        instance: Instance,
        image: Image,
        endpoint: Endpoint,
        volumes: Attached,
        disk: Path,
        kernel: Kernel,
        taps: tuple[int, ...],
    ) -> MachinePlan:
        parts, size = self._parts, booted(instance.spec.size)
        identity = guests.identity(instance, image, self._connections, endpoint)
        platform = await parts.machines.platform(kernel)
        file = parts.image_file(image.digest)
        kind = image.config.disk.format if image.config.disk else "raw"
        return MachinePlan(
            instance_id=instance.id,
            uid=parts.network.uid_base(instance.slot),
            size=size,
            acceleration=platform.acceleration.partition(" ")[0],
            kernel=kernel,
            image=Disk(file, "image", True, kind, image.offset, image.length),
            disk=Disk(disk, "disk", format=kind),
            volumes=tuple(
                Disk(path, f"vol{number}", mount.read_only)
                for number, (mount, path) in enumerate(volumes)
            ),
            guest=guests.guest(instance, image, identity, volumes),
            shape=Shape(
                platform=platform,
                image=image.digest,
                memory=size.memory,
                vcpus=vcpus(size),
                disk=_capacity(disk, image),
                nics=len(taps),
                volumes=tuple((f.stat().st_size, mount.read_only) for mount, f in volumes),
            ),
            taps=taps,
            cold=instance.spec.cold,
            log=instance.spec.log,
        )


def _capacity(disk: Path, image: Image) -> int:
    """The bytes that the guest sees of its disk; an overlay's file is as large as what it wrote."""
    return diskimage.virtual_size(disk) if image.config.disk else disk.stat().st_size
