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
from sublet.drivers.network.holds import Holds
from sublet.drivers.network.knocks import Knock
from sublet.drivers.network.removals import Removals
from sublet.drivers.network.table import Table
from sublet.drivers.network.threads import finish


class Publisher:
    """The published ports of one daemon's instances."""

    def __init__(self, table: Table, forwarders: Forwarders) -> None:
        self._table = table
        self._removals = Removals(table)
        self._forwarders = forwarders
        self._holds = Holds()

    async def publish(self, instance_id: str, address: str, ports: Sequence[Port]) -> list[Port]:
        """The host answers on the ports for the instance; host port 0 becomes a free one.

        Raises PortInUse, InvalidArgument (an address that is not the host's); then none
        of them is published.
        """
        if not ports or not address:
            return list(ports)
        await self._withdraw(instance_id)
        self._holds.release(instance_id)
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
                await asyncio.shield(self._withdraw(instance_id))
                raise
        return [each.port for each in bound]

    async def unpublish(self, instance_id: str) -> None:
        """The host no longer answers for the instance, nor holds a port for it."""
        await self._removals.remove(instance_id, rules.PORTS + rules.ASLEEP)
        self._holds.release(instance_id)
        await self._forwarders.stop(instance_id)

    async def _withdraw(self, instance_id: str) -> None:
        await finish(self._table.remove, instance_id, rules.PORTS)
        await self._forwarders.stop(instance_id)

    # Asleep

    async def quiet(self, instance_id: str, ports: Sequence[Port]) -> None:
        """Whoever comes to the ports gets no answer, and is heard, until `open`."""
        await finish(self._table.add, [rules.sleeper(instance_id, port) for port in ports])

    async def hold(self, instance_id: str, ports: Sequence[Port]) -> list[Port]:
        """The host answers for the instance no longer, but holds its ports, which are `quiet`.
        Those that somebody else has, and which stay his."""
        await self.quiet(instance_id, ports)
        await self._withdraw(instance_id)
        taken = self._holds.hold(instance_id, ports)
        for port in taken:
            await self.open(instance_id, port)
        return taken

    async def open(self, instance_id: str, port: Port) -> None:
        """The port is quiet no longer."""
        element = rules.sleeper(instance_id, port)
        await finish(self._table.remove, instance_id, (element.container,), element.key)

    def quiets(self, instance_id: str) -> bool:
        """Whether a port of the instance is quiet."""
        return self._table.has(instance_id, rules.ASLEEP)

    def sleeper(self, knock: Knock) -> str:
        """The instance at whose port somebody knocks; empty if nobody's is quiet any more."""
        for address in (knock.address, "0.0.0.0"):
            if found := self._table.owner(*rules.place_of(knock.protocol, address, knock.port)):
                return found
        return ""

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
