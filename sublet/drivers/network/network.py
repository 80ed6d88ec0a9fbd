"""The networks of one daemon: bridges, their rules, their names, published ports."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sublet.domain import subnets
from sublet.domain.config import Config
from sublet.domain.egress import Egress
from sublet.domain.errors import InsufficientCapacity, StartFailed, SubletError
from sublet.domain.leftover import Leftover
from sublet.domain.networks import STANDARD, NamedNetwork
from sublet.domain.ports import Port
from sublet.drivers.network import cables, foundation, leftovers, links, rules, taps
from sublet.drivers.network.cables import Cable
from sublet.drivers.network.confinement import Confinement
from sublet.drivers.network.dns import Names, resolver_text
from sublet.drivers.network.egress import elements
from sublet.drivers.network.endpoint import Endpoint, Place
from sublet.drivers.network.forward import Forwarders
from sublet.drivers.network.host_ports import HostPorts
from sublet.drivers.network.identity import Identity, Plan, veth
from sublet.drivers.network.knocks import Knocks
from sublet.drivers.network.listening import Caller, Listeners
from sublet.drivers.network.neighbours import Neighbours
from sublet.drivers.network.nft import Nft, NoSuchRule
from sublet.drivers.network.publish import Publisher
from sublet.drivers.network.removals import Removals
from sublet.drivers.network.table import Table
from sublet.drivers.network.threads import finish
from sublet.drivers.network.unplug import Unplugger
from sublet.drivers.network.watch import Watch

_OF_CABLES = rules.ENDPOINTS + rules.EGRESS + rules.ISOLATED


class Network:
    """Everything here is idempotent, and removal succeeds for what is gone.

    `subnet` and `region` (of user ids) are those that this daemon chose before, if they
    are known: the region stays, the subnet stays while nobody else has it. `networks` are those
    that exist, the default one first.
    """

    def __init__(
        self,
        config: Config,
        subnet: str = "",
        region: int | None = None,
        networks: Iterable[NamedNetwork] = (STANDARD,),
    ) -> None:
        self.identity = Identity.of(config.run)
        self._wanted = config.subnet
        self._preferred = subnet
        self._region = region
        self._networks = tuple(networks)
        self._plan: Plan | None = None
        nft = Nft()
        self._table = Table(self.identity, nft)
        self._unplugger = Unplugger(self.identity.group)
        self._removals = Removals(self._table)
        self._forwarders = Forwarders(self.identity.bridge)
        self._names = Names(config.run / "dns")
        self._confinement = Confinement(self._table)
        self._neighbours = Neighbours(self.identity, nft)
        self._listeners: Listeners | None = None
        self.host_ports = HostPorts()
        self.watch = Watch()
        self.knocks = Knocks(self.identity.knocks)
        self.ports = Publisher(self._table, self._forwarders)

    @property
    def plan(self) -> Plan:
        """The identity, the /16 and the networks in it; `up` decides them."""
        assert self._plan, "the network is not up"
        return self._plan

    @property
    def subnet(self) -> str:
        """The /16, to be handed to the constructor next time."""
        return str(self.plan.subnet)

    @property
    def gateway(self) -> str:
        """The default network's router and resolver."""
        return self.plan.default.gateway

    def address(self, slot: int) -> str:
        """The address on the default network of the instance in the slot."""
        return str(subnets.address(self.plan.subnet, slot))

    def uid_base(self, slot: int) -> int:
        """The first user id of the instance in the slot."""
        return subnets.uid_base(self.region, slot)

    @property
    def region(self) -> int:
        """The region of user ids, to be handed to the constructor next time."""
        return subnets.region(self.plan.subnet) if self._region is None else self._region

    def resolv_conf(self, network: int | None = 0) -> str:
        """What instances on a network get as /etc/resolv.conf; those on none, the host's."""
        host = foundation.host_resolv_conf()
        return host if network is None else resolver_text(self.plan.numbered(network).gateway, host)

    # The whole

    async def up(self) -> None:
        """Bridges and rules stand; what an earlier daemon left is adopted.

        Raises InvalidArgument when the subnet is taken or none is free.
        """
        await self._raise()
        await self._neighbours.meet()
        await self._forwarders.adopt()

    async def listen(self, take: Callable[[Caller, socket.socket], None]) -> None:
        """Hand to `take` whoever calls the metadata service, from now on."""
        self._listeners = Listeners(take)
        await self._lead()

    async def unlisten(self) -> None:
        """Nobody is heard any more who calls it, nor who calls the host by `host_ports`."""
        self.host_ports.close_all()
        if self._listeners:
            self._listeners.close()
            self._listeners = None
            self._confinement.close()
            with contextlib.suppress(NoSuchRule):  # others have removed the table
                await self._lead()

    async def _lead(self) -> None:
        """Calls lead to where they are heard."""
        ports = self._listeners.arrange(self.plan.segments) if self._listeners else {}
        await finish(self._table.arrange, rules.metadata(self.identity, ports))
        await self._answer()

    async def _answer(self) -> None:
        """Questions of those with lists of names lead to who answers them."""
        ports = self._confinement.arrange(self.plan.segments)
        await finish(self._table.arrange, rules.answers(self.identity, ports))

    async def down(self) -> None:
        """Nothing of these networks is left on the host, cables included."""
        await self._neighbours.part()
        self._confinement.close()
        await self._forwarders.adopt()
        for instance_id in self._forwarders.owners():
            await self._forwarders.stop(instance_id)
        await finish(self._names.stop)
        await finish(links.delete_all, self.identity)
        await finish(self._table.delete)

    def serving(self) -> bool:
        """Whether the resolvers and forwarders run that were started."""
        return self._names.alive() and not self._forwarders.broken()

    async def healthy(self) -> bool:
        """Whether bridges, rules and resolvers are there; if not, call `repair`. What other
        engines' rules need is seen to."""
        await self._neighbours.meet()
        present = all(links.exists(segment.bridge) for segment in self.plan.segments)
        return present and self._names.alive() and await finish(self._table.intact)

    async def repair(self, endpoints: Sequence[Endpoint]) -> None:
        """Bring back what others removed, for the instances that are up."""
        await self._raise()
        await self._neighbours.restore()
        await self._neighbours.meet()
        for endpoint in endpoints:
            await finish(self._repair_cables, endpoint)
            await self.ports.repair(endpoint)
            await self.announce(endpoint)
        await self._confinement.restore()
        await self._names.ensure()

    async def leftovers(
        self, known_ids: set[str], asleep: frozenset[str] | set[str] = frozenset()
    ) -> list[Leftover]:
        """What is on the host for instances that are not known, or for no network. Those `asleep`
        have ports that are held, and nothing else."""
        found = await finish(
            leftovers.of_instances,
            self.plan,
            self._table,
            self._forwarders,
            self._names,
            known_ids,
            asleep,
        )
        return found + await finish(leftovers.of_networks, self.plan, self._names)

    async def clean(self) -> None:
        """Remove what is on the host for no network."""
        await finish(leftovers.remove, self.plan, self._names)

    # Networks

    async def taken(self) -> list[IPv4Network]:
        """The networks that this host has routes to, or asks for names."""
        return await finish(foundation.taken)

    async def add(self, network: NamedNetwork) -> None:
        """A further network stands."""
        self._networks = (*self._networks, network)
        await self._raise()

    async def remove(self, network: NamedNetwork) -> None:
        """The network is gone: its bridge, rules and names."""
        self._networks = tuple(each for each in self._networks if each.id != network.id)
        if network in self.plan.networks:
            self._plan = replace(self.plan, networks=self._networks)
            await finish(self._names.drop, network.number)
        await finish(links.delete_bridge, self.identity.bridge_of(network.number))
        await finish(self._table.arrange, rules.networks(self.plan))
        if self._listeners:
            await self._lead()

    # Instances

    async def attach(
        self,
        instance_id: str,
        netns: int | Path,
        address: str,
        *,
        network: int = 0,
        interface: int = 0,
        egress: Egress | None = None,
    ) -> None:
        """The instance's network namespace has eth<interface> with the address, on the network.

        `netns` is a descriptor of the namespace, or its file. Raises StartFailed;
        InsufficientCapacity when the bridge is full.
        """
        with _explained(instance_id):
            place = Place(address, (), network, interface)
            await finish(self._plug, self._cable(instance_id, place), netns, egress)
        await self._confinement.inherit_nothing(egress, address)

    async def attach_tap(
        self,
        instance_id: str,
        address: str,
        *,
        network: int = 0,
        interface: int = 0,
        egress: Egress | None = None,
    ) -> int:
        """A descriptor of the cable to a machine's eth<interface>, which is on the network for as
        long as somebody holds it. Raises as `attach`."""
        held: list[int] = []
        try:
            with _explained(instance_id):
                place = Place(address, (), network, interface)
                await finish(self._plug_tap, self._cable(instance_id, place), held, egress)
            await self._confinement.inherit_nothing(egress, address)
        except BaseException:
            for fd in held:  # it was cancelled when the cable was there
                os.close(fd)
            raise
        return held[0]

    async def detach(self, instance_id: str, interface: int | None = None) -> None:
        """The instance is off its networks, or off the one that it has at one interface."""
        if interface is None:
            names = {veth(instance_id), *self._table.cables(instance_id)}
            await self._unplugger.gone(names)
            await self._confinement.forget(instance_id)
            await self._removals.remove(instance_id, _OF_CABLES)
        else:
            name = veth(instance_id, interface)
            await self._unplugger.remove([name])
            containers = rules.ENDPOINTS + rules.ISOLATED
            await finish(self._table.remove, instance_id, containers, f'"{name}"')

    async def loopback(self, netns: Path) -> None:
        """The network namespace has nothing but an `lo` that is up."""
        with _opened(netns) as fd:
            await finish(cables.loopback, fd)

    async def register(
        self, instance_id: str, address: str, names: Iterable[str], *, network: int = 0
    ) -> None:
        """The names, in place of those before, resolve to the address on the network, a
        millisecond from now.

        Raises ProcessFailed when the resolver cannot start: something has port 53.
        """
        await self._names.add(instance_id, address, names, network)

    async def announce(self, endpoint: Endpoint) -> None:
        """The instance's names are known on its networks, and it is told those of all of them, or
        those that its policy for connections outwards names."""
        if await self._confinement.enforce(endpoint, plugged=False):
            await self._answer()
        for place in endpoint.places:
            await self.register(
                endpoint.instance_id, place.address, place.names, network=place.network
            )
        numbers = tuple(place.network for place in endpoint.places)
        await self._names.unview(endpoint.instance_id, unless=numbers)
        if len(numbers) > 1:
            port = await self._names.view(endpoint.instance_id, numbers)
            element = rules.view(endpoint.instance_id, IPv4Address(endpoint.address), port)
            await finish(self._table.add, [element])
        elif self._table.has(endpoint.instance_id, rules.VIEWS):
            await finish(self._table.remove, endpoint.instance_id, rules.VIEWS)

    async def confine(self, endpoint: Endpoint) -> None:
        """The instance connects only to whom its policy lets it, on all its networks, from now on:
        connections that it has begun are judged anew."""
        if await self._confinement.enforce(endpoint, plugged=True):
            await self._answer()

    async def unregister(self, instance_id: str, network: int | None = None) -> None:
        """The instance's names are gone, on one network or on all."""
        self._names.remove(instance_id, network)
        if network is None and self._table.has(instance_id, rules.VIEWS):
            await self._names.unview(instance_id)
            await finish(self._table.remove, instance_id, rules.VIEWS)

    async def publish(self, instance_id: str, address: str, ports: Sequence[Port]) -> list[Port]:
        """The host answers on the ports for the instance: `Publisher.publish`."""
        return await self.ports.publish(instance_id, address, ports)

    async def unpublish(self, instance_id: str) -> None:
        """The host no longer answers for the instance."""
        await self.ports.unpublish(instance_id)

    async def _raise(self) -> None:
        wanted = str(self._plan.subnet) if self._plan else self._wanted
        try:
            self._plan = await finish(
                foundation.raise_bridges, self.identity, wanted, self._preferred, self._networks
            )
        except OSError as error:
            raise SubletError(f"The bridges cannot be set up: {error}.") from error
        self._names.arrange(self._plan)
        await finish(self._table.ensure, self._plan)
        await (self._lead() if self._listeners else self._answer())

    def _cable(self, instance_id: str, place: Place) -> Cable:
        segment = self.plan.numbered(place.network)
        return Cable(instance_id, place.interface, IPv4Address(place.address), segment)

    def _allow(self, cable: Cable, egress: Egress | None) -> None:
        """What the cable may send from, and to whom, stands before it does."""
        kept = elements(cable.instance_id, egress, cable.address, cable.interface)
        self._table.add([rules.endpoint(cable), *self._table.lacking(kept)])

    def _plug(self, cable: Cable, netns: int | Path, egress: Egress | None) -> None:
        self._allow(cable, egress)
        if isinstance(netns, int):
            cables.plug(cable, netns)
            return
        with _opened(netns) as fd:
            cables.plug(cable, fd)

    def _plug_tap(self, cable: Cable, held: list[int], egress: Egress | None) -> None:
        self._allow(cable, egress)
        held.append(taps.plug(cable))

    def _repair_cables(self, endpoint: Endpoint) -> None:
        for place in endpoint.places:
            cable = self._cable(endpoint.instance_id, place)
            if cables.replug(cable):
                self._allow(cable, endpoint.egress)
            elif endpoint.netns:
                self._plug(cable, endpoint.netns, endpoint.egress)


@contextlib.contextmanager
def _explained(instance_id: str) -> Iterator[None]:
    """What the kernel says against a new cable, in words."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EXFULL:
            raise InsufficientCapacity(
                "The network's bridge has all the 1023 cables that a bridge can have.",
                hint="Put further instances on another network: sublet network create NAME.",
            ) from error
        raise StartFailed(f"{instance_id} cannot be put on the network: {error}.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
