"""Published ports: translated by nftables for other hosts, forwarded for this one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from ipaddress import IPv4Address

from sublet.domain.ports import Port
from sublet.drivers.network import forward, rules
from sublet.drivers.network.endpoint import Endpoint
from sublet.drivers.network.forward import Forwarders
from sublet.drivers.network.table import Table
from sublet.drivers.network.threads import finish


class Publisher:
    """The published ports of one daemon's instances."""

    def __init__(self, table: Table, forwarders: Forwarders) -> None:
        self._table = table
        self._forwarders = forwarders

    async def publish(self, instance_id: str, address: str, ports: Sequence[Port]) -> list[Port]:
        """The host answers on the ports for the instance; host port 0 becomes a free one.

        Raises PortInUse, InvalidArgument (an address that is not the host's); then none
        of them is published.
        """
        if not ports or not address:
            return list(ports)
        await self.unpublish(instance_id)
        with contextlib.ExitStack() as sockets:
            bound = []
            for port in ports:
                bound.append(forward.bind(port))
                sockets.callback(bound[-1].socket.close)
            try:
                await self._translate(instance_id, address, [each.port for each in bound])
                starts = [self._forwarders.start(instance_id, address, each) for each in bound]
                for outcome in await asyncio.gather(*starts, return_exceptions=True):
                    if outcome is not None:
                        raise outcome
            except BaseException:
                await asyncio.shield(self.unpublish(instance_id))
                raise
        return [each.port for each in bound]

    async def unpublish(self, instance_id: str) -> None:
        """The host no longer answers for the instance."""
        await finish(self._table.remove, instance_id, rules.PORTS)
        await self._forwarders.stop(instance_id)

    def forwards(self, endpoint: Endpoint) -> bool:
        """Whether the forwarders of all the instance's ports run; if not, call `repair`."""
        count = len(endpoint.ports) if endpoint.address else 0
        return self._forwarders.alive(endpoint.instance_id, count)

    async def repair(self, endpoint: Endpoint) -> None:
        """Bring back the published ports of an instance that is up."""
        if not self.forwards(endpoint):
            await self.publish(endpoint.instance_id, endpoint.address, endpoint.ports)
        elif endpoint.address:
            await self._translate(endpoint.instance_id, endpoint.address, endpoint.ports)

    async def _translate(self, instance_id: str, address: str, ports: Sequence[Port]) -> None:
        made = [rules.publication(instance_id, IPv4Address(address), port) for port in ports]
        await finish(self._table.add, [element for element in made if element])
