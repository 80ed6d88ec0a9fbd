"""The network of one daemon: a bridge, its rules, its names, its published ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from sublet.domain import subnets
from sublet.domain.config import Config
from sublet.domain.errors import StartFailed, SubletError
from sublet.domain.leftover import Leftover
from sublet.domain.ports import Port
from sublet.drivers.network import cables, forward, foundation, links, rules
from sublet.drivers.network.dns import Names, resolver_text
from sublet.drivers.network.endpoint import Endpoint
from sublet.drivers.network.forward import Forwarders
from sublet.drivers.network.identity import Identity, Plan, owner, veth
from sublet.drivers.network.table import Table
from sublet.drivers.network.threads import finish
from sublet.drivers.network.unplug import Unplugger


class Network:
    """Everything here is idempotent, and removal succeeds for what is gone.

    `subnet` and `region` (of user ids) are those that this daemon chose before, if they
    are known: the region stays, the subnet stays while nobody else has it.
    """

    def __init__(self, config: Config, subnet: str = "", region: int | None = None) -> None:
        self.identity = Identity.of(config.run)
        self._wanted = config.subnet
        self._preferred = subnet
        self._region = region
        self._plan: Plan | None = None
        self._table = Table(self.identity)
        self._unplugger = Unplugger(self.identity)
        self._forwarders = Forwarders(self.identity.bridge)
        self._names = Names(config.run / "dns")

    @property
    def plan(self) -> Plan:
        """The identity and subnet; `up` decides them."""
        assert self._plan, "the network is not up"
        return self._plan

    @property
    def subnet(self) -> str:
        """The subnet, to be handed to the constructor next time."""
        return str(self.plan.subnet)

    @property
    def gateway(self) -> str:
        """The bridge's address: router and resolver of every instance."""
        return self.plan.gateway

    def address(self, slot: int) -> str:
        """The address of the instance in the slot."""
        return str(subnets.address(self.plan.subnet, slot))

    def uid_base(self, slot: int) -> int:
        """The first user id of the instance in the slot."""
        return subnets.uid_base(self.region, slot)

    @property
    def region(self) -> int:
        """The region of user ids, to be handed to the constructor next time."""
        return subnets.region(self.plan.subnet) if self._region is None else self._region

    def resolv_conf(self) -> str:
        """What instances get as /etc/resolv.conf."""
        return resolver_text(self.gateway, foundation.host_resolv_conf())

    async def up(self) -> None:
        """Bridge and rules stand; what an earlier daemon left is adopted.

        Raises InvalidArgument when the subnet is taken or none is free.
        """
        await self._raise()
        await self._forwarders.adopt()
        self._names.adopt(self.gateway)

    async def down(self) -> None:
        """Nothing of this network is left on the host, cables included."""
        await self._forwarders.adopt()
        for instance_id in self._forwarders.owners():
            await self._forwarders.stop(instance_id)
        await finish(self._names.stop)
        await finish(links.delete_all, self.identity)
        await finish(self._table.delete)

    async def healthy(self) -> bool:
        """Whether bridge, rules and resolver are there; if not, call `repair`."""
        present = links.exists(self.identity.bridge) and self._names.alive()
        return present and await finish(self._table.intact)

    async def repair(self, endpoints: Sequence[Endpoint]) -> None:
        """Bring back what others removed, for the instances that are up."""
        await self._raise()
        for endpoint in endpoints:
            await finish(self._repair_cable, endpoint)
            await self.repair_ports(endpoint)
            if endpoint.names:
                await self._names.add(endpoint.instance_id, endpoint.address, list(endpoint.names))

    def forwards(self, endpoint: Endpoint) -> bool:
        """Whether the forwarders of all the instance's ports run; if not, call `repair_ports`."""
        return self._forwarders.alive(endpoint.instance_id, len(endpoint.ports))

    async def repair_ports(self, endpoint: Endpoint) -> None:
        """Bring back the published ports of an instance that is up."""
        if self.forwards(endpoint):
            await self._translate(endpoint.instance_id, endpoint.address, endpoint.ports)
        else:
            await self.publish(endpoint.instance_id, endpoint.address, endpoint.ports)

    async def attach(self, instance_id: str, netns: int | Path, address: str) -> None:
        """The instance's network namespace has eth0 with the address, on this network.

        `netns` is a descriptor of the namespace, or its file. Raises StartFailed.
        """
        try:
            await finish(self._plug, instance_id, netns, IPv4Address(address))
        except OSError as error:
            raise StartFailed(f"{instance_id} cannot be put on the network: {error}.") from error

    async def detach(self, instance_id: str) -> None:
        """The instance is off this network."""
        await self._unplugger.remove(veth(instance_id))
        await finish(self._table.remove, instance_id, "bridge")

    async def publish(self, instance_id: str, address: str, ports: Sequence[Port]) -> list[Port]:
        """The host answers on the ports for the instance; host port 0 becomes a free one.

        Raises PortInUse, InvalidArgument (an address that is not the host's); then none
        of them is published.
        """
        if not ports:
            return []
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
        await finish(self._table.remove, instance_id, "inet")
        await self._forwarders.stop(instance_id)

    async def register(self, instance_id: str, address: str, names: Sequence[str]) -> None:
        """The names resolve to the address on this network, a millisecond from now.

        Raises ProcessFailed when the resolver cannot start: something has port 53.
        """
        await self._names.add(instance_id, address, list(names))

    async def unregister(self, instance_id: str) -> None:
        """The instance's names are gone."""
        self._names.remove(instance_id)

    async def leftovers(self, known_ids: set[str]) -> list[Leftover]:
        """What this daemon's network has for instances that are not known."""
        return await finish(self._leftovers, known_ids)

    async def remove_leftovers(self, known_ids: set[str]) -> list[Leftover]:
        """Remove what `leftovers` finds; returns it."""
        found = await self.leftovers(known_ids)
        await self._forwarders.adopt()
        for left in found:
            if left.kind == "link":
                await self._unplugger.remove(left.name)
        for instance_id in {left.owner for left in found}:
            await self.unpublish(instance_id)
            await finish(self._table.remove, instance_id, "bridge")
            await self.unregister(instance_id)
        return found

    async def _raise(self) -> None:
        wanted = str(self._plan.subnet) if self._plan else self._wanted
        try:
            self._plan = await finish(
                foundation.raise_bridge, self.identity, wanted, self._preferred
            )
        except OSError as error:
            raise SubletError(f"The bridge cannot be set up: {error}.") from error
        await finish(self._table.ensure, self._plan)

    def _plug(self, instance_id: str, netns: int | Path, address: IPv4Address) -> None:
        name = veth(instance_id)
        self._table.add([rules.endpoint(instance_id, address)])
        if isinstance(netns, int):
            cables.plug(self.plan, name, netns, address)
            return
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            cables.plug(self.plan, name, fd, address)
        finally:
            os.close(fd)

    async def _translate(self, instance_id: str, address: str, ports: Sequence[Port]) -> None:
        made = [rules.publication(instance_id, IPv4Address(address), port) for port in ports]
        await finish(self._table.add, [element for element in made if element])

    def _repair_cable(self, endpoint: Endpoint) -> None:
        address = IPv4Address(endpoint.address)
        if cables.replug(self.plan, veth(endpoint.instance_id)):
            self._table.add([rules.endpoint(endpoint.instance_id, address)])
        elif endpoint.netns:
            self._plug(endpoint.instance_id, endpoint.netns, address)

    def _leftovers(self, known: set[str]) -> list[Leftover]:
        links_ = [Leftover("link", name, owner(name)) for name in cables.owned(self.identity)]
        rules_ = [
            Leftover("rule", f"{self.identity.table} {e.container} {e.key}", e.owner)
            for e in self._table.listing()
        ]
        processes = [
            Leftover("process", f"socat {group}", instance_id)
            for instance_id, groups in self._forwarders.running().items()
            for group in sorted(groups)
        ]
        names = [
            Leftover("name", ",".join(entry[1]), instance_id)
            for instance_id, entry in self._names.entries().items()
        ]
        found = links_ + rules_ + processes + names
        return [left for left in found if left.owner not in known]
