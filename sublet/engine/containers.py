"""How a container comes up: what it needs is made, as much as possible at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from sublet.domain.image import Image
from sublet.domain.instance import Instance
from sublet.domain.mounts import Mount
from sublet.domain.networks import Mode
from sublet.domain.ports import Port
from sublet.drivers import trace
from sublet.drivers.container.containers import Plan
from sublet.drivers.container.supervisor import Started
from sublet.drivers.network import Endpoint
from sublet.engine import plan
from sublet.engine.connections import Connections
from sublet.engine.parts import Parts
from sublet.engine.volumes import Volumes


class ContainerStarts:
    """Starts the containers of one daemon."""

    def __init__(self, parts: Parts, connections: Connections, volumes: Volumes) -> None:
        self.parts, self.connections, self.volumes = parts, connections, volumes

    async def start(
        self, instance: Instance, image: Image, *, attach: bool = False
    ) -> tuple[Started, tuple[Port, ...]]:
        """Make what a container needs, and run its command; the ports that are published."""
        parts, endpoint = self.parts, self.connections.endpoint(instance)
        uid_base = parts.network.uid_base(instance.slot)
        what = plan.container_plan(
            instance,
            image.config,
            address=endpoint.address,
            gateway=self.connections.gateway(endpoint),
            uid_base=uid_base,
            resolv_conf=self.connections.resolv_conf(instance),
            joined=self.connections.joined(instance),
        )
        what, ports = await self._make(instance, image, endpoint, what)
        return await parts.containers.start(what, attach=attach), ports

    async def _make(
        self, instance: Instance, image: Image, endpoint: Endpoint, what: Plan
    ) -> tuple[Plan, tuple[Port, ...]]:
        """All that the instance needs before its command runs: what does not need the other is
        made at the same time. The plan with its volumes, and the ports that are published."""
        parts = self.parts
        own_network = Mode.of(instance.spec.network).own
        async with asyncio.TaskGroup() as group:
            ports = parts.network.publish(instance.id, endpoint.address, instance.spec.ports)
            publishing = group.create_task(trace.timed("publish", ports))
            group.create_task(trace.timed("names", parts.network.announce(endpoint)))
            with trace.step("namespaces"):
                namespace = await parts.containers.isolate(
                    instance.id, what.uid_base, network=own_network
                )
            if namespace:
                plugging = self.connections.attach(endpoint, namespace)
                group.create_task(trace.timed("network", plugging))
                await asyncio.sleep(0)  # it begins now; what follows waits for nothing for long
            with trace.step("image mount"):
                lower = await self.lower(instance, image)
            mounts = await self.volumes.attach(instance, lower)
            what = replace(what, mounts=(*mounts, *self._hiding(instance)))
            await parts.containers.prepare(what, lower)
        await self.show_host(instance)
        return what, tuple(publishing.result())

    async def show_host(self, instance: Instance) -> None:
        """The ports of the host that it was given are at its own loopback."""
        netns = self.parts.containers.places(instance.id).network_namespace
        await self.parts.network.host_ports.open(instance.id, netns, instance.spec.host_ports)

    def _hiding(self, instance: Instance) -> tuple[Mount, ...]:
        """What hides Sublet's own directories, other instances' among them, and what runs here,
        from one that has the host's files."""
        parts = self.parts
        own = (parts.config.root, parts.config.run, parts.containers.mounts)
        return plan.hidden([*own, Path("/run")]) if instance.spec.root else ()

    async def mount(self, instance: Instance, image: Image) -> None:
        """Show the file system of an instance that does not run, until `release`."""
        uid_base = self.parts.network.uid_base(instance.slot)
        lower = await self.lower(instance, image)
        await self.parts.containers.isolate(instance.id, uid_base, network=False)
        limit = instance.spec.size.disk
        await self.parts.containers.mount_root(instance.id, lower, uid_base, limit)

    async def lower(self, instance: Instance, image: Image) -> Path:
        """The directory that shows the instance's image, until `release`; or the host's root."""
        if instance.spec.root:
            return Path("/")
        file = self.parts.image_file(instance.digest)
        return await self.parts.layers.acquire(file, image.offset, image.length, instance.id)
