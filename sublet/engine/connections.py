"""Which networks an instance is on: what its start, its end and its adoption ask."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from sublet.domain import networks, slots
from sublet.domain.errors import InvalidArgument, NoSuchInstance, NoSuchNetwork, WrongState
from sublet.domain.instance import LIVE, Instance
from sublet.domain.networks import STANDARD, Connection, Mode, NamedNetwork
from sublet.domain.spec import InstanceSpec
from sublet.drivers.network import Endpoint, Place
from sublet.engine.parts import Parts


class Connections:
    """The connections of one daemon's instances. That to the default network has no row in the
    database where the instance asked for no other."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._last: dict[str, int] = {}

    def network(self, text: str) -> NamedNetwork:
        """The network that a name, an id or the beginning of an id names. Raises NoSuchNetwork."""
        if networks.is_default(text):
            return STANDARD
        found = self.parts.network_store.find(text)
        if len(found) > 1:
            raise InvalidArgument(
                f"'{text}' begins the ids of {len(found)} networks.", hint="Give more of the id."
            )
        if not found:
            raise NoSuchNetwork(f"There is no network '{text}'.")
        return found[0]

    def settle(self, spec: InstanceSpec) -> InstanceSpec:
        """The request with what its network names resolved. Raises where there is no such thing."""
        mode = Mode.of(spec.network)
        if mode is Mode.CONTAINER:
            other = self._other(spec.network)
            return replace(spec, network=f"container:{other.id}")
        if mode is Mode.NETWORKS:
            self.network(spec.network)
        return spec

    def join(self, instance: Instance) -> None:
        """Note the network that a new instance asked for; where that has no room, the instance's
        row goes again. Raises InsufficientCapacity."""
        spec = instance.spec
        if Mode.of(spec.network) is not Mode.NETWORKS or networks.is_default(spec.network):
            return
        try:
            self.add(instance, self.network(spec.network), spec.aliases)
        except BaseException:
            self.parts.store.delete(instance.id)
            raise

    def inherited(self, spec: InstanceSpec, origin: Instance) -> InstanceSpec:
        """A fork's request: without the network of its origin's, if that was taken off it."""
        if Mode.of(spec.network) is not Mode.NETWORKS or networks.is_default(spec.network):
            return spec
        with contextlib.suppress(NoSuchNetwork):
            asked = self.network(spec.network).id
            if any(connection.network == asked for connection in self.of(origin)):
                return spec
        return replace(spec, network=Mode.NONE.value, aliases=())

    def follow(self, origin: Instance, fork: Instance) -> None:
        """Note for a fork the networks that its origin was put on later. Raises
        InsufficientCapacity."""
        known = {connection.network for connection in self.of(fork)}
        for connection in self.of(origin):
            if connection.network not in known:
                self.add(fork, self.network(connection.network), connection.aliases)

    def add(
        self, instance: Instance, network: NamedNetwork, aliases: tuple[str, ...], address: str = ""
    ) -> Connection:
        """Note a further network of an instance, at the next free interface."""
        used = {connection.interface for connection in self.of(instance)}
        interface = next(number for number in range(256) if number not in used)
        offset = self._offset(instance, network, address)
        connection = Connection(network.id, instance.id, interface, offset, aliases)
        self.parts.network_store.connect(connection)
        return connection

    def of(self, instance: Instance) -> list[Connection]:
        """All of the instance's connections, in the order of their interfaces."""
        rows = self.parts.network_store.of_instance(instance.id)
        if networks.is_default(instance.spec.network):
            offset, aliases = slots.offset(instance.slot), instance.spec.aliases
            rows.insert(0, Connection(STANDARD.id, instance.id, 0, offset, aliases))
        return rows

    def endpoint(self, instance: Instance) -> Endpoint:
        """The instance as the network driver knows it; of its places that with the way out comes
        first."""
        placed = [self._place(instance, connection) for connection in self.of(instance)]
        placed.sort(key=lambda pair: (pair[0].internal, pair[1].interface))
        return Endpoint(
            instance_id=instance.id,
            places=tuple(place for _, place in placed),
            ports=instance.spec.ports,
            netns=self.parts.containers.places(instance.id).network_namespace,
            egress=instance.spec.egress,
        )

    def resolv_conf(self, instance: Instance) -> str:
        """What the instance gets as /etc/resolv.conf."""
        if Mode.of(instance.spec.network) is Mode.CONTAINER:
            return self.resolv_conf(self._other(instance.spec.network))
        places = self.endpoint(instance).places
        return self.parts.network.resolv_conf(places[0].network if places else None)

    def gateway(self, endpoint: Endpoint) -> str:
        """Where the host answers an instance: its first network's gateway, else a loopback."""
        if not endpoint.places:
            return "127.0.0.1"
        return self.parts.network.plan.numbered(endpoint.places[0].network).gateway

    async def attach(self, endpoint: Endpoint, namespace: Path) -> None:
        """Lay the cables of an instance that starts. Raises StartFailed."""
        network = self.parts.network
        if not endpoint.places:
            await network.loopback(namespace)
        for place in endpoint.places:
            await network.attach(
                endpoint.instance_id,
                namespace,
                place.address,
                network=place.network,
                interface=place.interface,
                egress=endpoint.egress,
            )

    def joined(self, instance: Instance) -> str:
        """The id of the instance whose network this one joins, which must run; else empty."""
        if Mode.of(instance.spec.network) is not Mode.CONTAINER:
            return ""
        other = self._other(instance.spec.network)
        if other.state not in LIVE:
            raise WrongState(
                f"{other.name}, whose network {instance.name} joins, is {other.state}.",
                hint=f"Start it first: sublet start {other.name}.",
            )
        return other.id

    def _other(self, network: str) -> Instance:
        text = network.partition(":")[2]
        found = self.parts.store.find(text)
        if len(found) != 1:
            raise NoSuchInstance(f"There is no instance '{text}' whose network could be joined.")
        if not Mode.of(found[0].spec.network).own:
            raise InvalidArgument(
                f"{found[0].name} has no network of its own to join.",
                hint=f"Give --network {found[0].spec.network} instead.",
            )
        return found[0]

    def _place(self, instance: Instance, connection: Connection) -> tuple[NamedNetwork, Place]:
        network = self.parts.network_store.get(connection.network)
        if network is None:
            raise NoSuchNetwork(f"A network of {instance.name} is gone.")
        subnet = network.within(self.parts.network.plan.subnet)
        names = [instance.name, instance.id, instance.spec.hostname, *connection.aliases]
        # Single labels only: with a dot, a tenant could take a name of the internet for itself.
        single = dict.fromkeys(name for name in names if name and "." not in name)
        place = Place(
            str(subnet[connection.offset]), tuple(single), network.number, connection.interface
        )
        return network, place

    def _offset(self, instance: Instance, network: NamedNetwork, address: str) -> int:
        base = self.parts.network.plan.subnet
        subnet = network.within(base)
        if network.id == STANDARD.id:
            if address:
                raise InvalidArgument(
                    "An address on the default network cannot be chosen.",
                    hint="Make a network of your own: sublet network create NAME.",
                )
            return slots.offset(instance.slot)
        rows = self.parts.network_store.of_network(network.id)
        taken = {row.offset for row in rows} | {int(network.door(base)) - int(subnet[0])}
        if address:
            offset = networks.offset_of(address, subnet)
            if offset in taken:
                raise InvalidArgument(f"{address} is taken on the network {network.name}.")
            return offset
        last = self._last.get(network.id, max(taken))
        self._last[network.id] = networks.offset_after(last, taken, subnet)
        return self._last[network.id]
