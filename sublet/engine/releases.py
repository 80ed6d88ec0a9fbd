"""What a running instance holds of its host, and how that is given back: namespaces, machines,
mounts, cables, names and ports."""

from __future__ import annotations

import asyncio
import logging

from sublet.domain.errors import SubletError
from sublet.domain.instance import Instance
from sublet.domain.waking import holds_ports
from sublet.drivers import trace
from sublet.engine.parts import Parts

log = logging.getLogger(__name__)


class Releases:
    """Gives back what the instances of one daemon hold."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    async def release(self, instance_id: str) -> None:
        """Give back what a running instance holds. Idempotent; nothing stops it half-way."""
        parts = self.parts
        outcomes = await asyncio.gather(
            trace.timed("withdraw names", parts.network.unregister(instance_id)),
            trace.timed("unpublish", self._unpublish(instance_id)),
            self._take_down(instance_id),
            return_exceptions=True,
        )
        failures = [error for error in outcomes if isinstance(error, BaseException)]
        with trace.step("image unmount"):
            parts.layers.release(instance_id)
            parts.volumes.release(instance_id)
        if failures:
            raise SubletError(
                f"{instance_id} could not be cleaned up: {'; '.join(map(repr, failures))}."
            )

    async def _unpublish(self, instance_id: str) -> None:
        instance = self.parts.store.get(instance_id)
        if instance is None:
            await self.parts.network.unpublish(instance_id)
        else:
            await self.withdraw(instance)

    async def withdraw(self, instance: Instance) -> None:
        """The host does not answer on the instance's ports any more. One that a connection wakes
        keeps them: who comes is heard, and nobody else gets them."""
        if not holds_ports(instance):
            await self.parts.network.unpublish(instance.id)
            return
        for port in await self.parts.network.ports.hold(instance.id, instance.spec.ports):
            log.warning("%s of %s is another program's now", port, instance.name)

    async def _take_down(self, instance_id: str) -> None:
        """The namespaces first: the cable goes with the network's."""
        self.parts.network.host_ports.close(instance_id)
        try:
            with trace.step("teardown"):
                instance = self.parts.store.get(instance_id)
                if instance is None or instance.spec.vm:
                    await self.parts.machines.teardown(instance_id)
                if instance is None or not instance.spec.vm:
                    await self.parts.containers.teardown(instance_id)
        finally:
            with trace.step("unplug"):
                await self.parts.network.detach(instance_id)
