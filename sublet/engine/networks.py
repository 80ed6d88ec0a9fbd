"""Verbs on networks: create, list, inspect, remove, prune, connect, disconnect."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from sublet.domain import networks, resolving
from sublet.domain.errors import InvalidArgument, NetworkInUse, NoSuchNetwork, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.networks import STANDARD, Connection, Mode, NamedNetwork, NetworkSpec
from sublet.engine.instances import Instances


@dataclass(frozen=True, slots=True)
class Member:
    """An instance on a network, and its address there."""

    instance: Instance
    connection: Connection
    address: IPv4Address


class Networks:
    """What can be done with the networks of one daemon."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.parts = instances.parts
        self.connections = instances.lifecycle.connections
        self._locks = instances.lifecycle.locks

    def list(self, filters: Iterable[str] = ()) -> list[NamedNetwork]:
        """All networks that the filters leave, the default one first."""
        wanted = networks.parse(filters)
        return [row for row in self.parts.network_store.all() if networks.matches(row, wanted)]

    def get(self, text: str) -> NamedNetwork:
        """The network that a name, an id or the beginning of an id names."""
        return self.connections.network(text)

    def members(self, network: NamedNetwork) -> Sequence[Member]:
        """The instances on a network, running or not, in the order of their addresses."""
        subnet = network.within(self.parts.network.plan.subnet)
        found = [
            Member(instance, connection, subnet[connection.offset])
            for instance in self.parts.store.all()
            for connection in self.connections.of(instance)
            if connection.network == network.id
        ]
        return sorted(found, key=lambda member: member.connection.offset)

    async def create(self, spec: NetworkSpec) -> NamedNetwork:
        """Make a network. Raises NameInUse, InvalidArgument, InsufficientCapacity."""
        async with self._locks.hold("networks", "network create"):
            base, taken = self.parts.network.plan.subnet, await self.parts.network.taken()
            spec = networks.check_network_spec(spec, base, taken)
            used = [row.number for row in self.parts.network_store.all()]
            network = NamedNetwork(
                id=secrets.token_hex(6),
                name=spec.name,
                number=networks.number_for(spec.subnet, used, base, taken),
                subnet=spec.subnet,
                gateway=spec.gateway,
                internal=spec.internal,
                labels=spec.labels,
                created=time.time(),
            )
            self.parts.network_store.add(network)
            try:
                await self.parts.network.add(network)
            except BaseException:
                await self._delete(network)
                raise
        self.parts.events.publish("network.created", network=network.name)
        return network

    async def remove(self, text: str) -> NamedNetwork:
        """Delete a network. Raises NetworkInUse while instances are on it."""
        async with self._locks.hold("networks", "network rm"):
            network = self.get(text)
            if network.id == STANDARD.id:
                raise InvalidArgument(
                    "The default network cannot be removed.",
                    hint="Others can: `sublet network ls`.",
                )
            names = [member.instance.name for member in self.members(network)]
            if names:
                some = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
                raise NetworkInUse(f"The network {network.name} has instances: {some}.")
            await self._delete(network)
        self.parts.events.publish("network.removed", network=network.name)
        return network

    async def _delete(self, network: NamedNetwork) -> None:
        """The row goes first, so that no instance joins meanwhile; a bridge that a crash leaves is
        the next daemon's to remove."""
        self.parts.network_store.delete(network.id)
        await self.parts.network.remove(network)

    async def prune(self) -> Sequence[str]:
        """Delete every network that no instance is on; their names."""
        unused = [n for n in self.list() if n.id != STANDARD.id and not self.members(n)]
        removed = []
        for network in unused:
            with contextlib.suppress(NetworkInUse, NoSuchNetwork):  # meanwhile
                removed.append((await self.remove(network.id)).name)
        return removed

    async def connect(
        self, text: str, name: str, aliases: tuple[str, ...] = (), address: str = ""
    ) -> None:
        """Put an instance on a further network, at once if it runs.

        Raises InvalidArgument, WrongState where it is there already, InsufficientCapacity.
        """
        for alias in aliases:
            networks.check_alias(alias)
        network, instance = self.get(text), self.instances.get(name)
        async with self._locks.hold(instance.id, "network connect"):
            instance = self._changeable(instance)
            if self._connection(network, instance):
                raise WrongState(
                    f"{instance.name} is on the network {network.name} already.",
                    hint=f"Take it off first: sublet network disconnect {text} {name}.",
                )
            before = self.connections.endpoint(instance)
            connection = self.connections.add(instance, network, aliases, address)
            try:
                await self._plug(instance, network, connection)
                await self._follow(instance, before.address)
            except BaseException:
                await self._unplug(instance, network, connection)
                raise
        self._tell("connected", network, instance)

    async def disconnect(self, text: str, name: str, *, force: bool = False) -> None:
        """Take an instance off a network, at once if it runs.

        Raises WrongState where it is not on it, unless `force`.
        """
        network, instance = self.get(text), self.instances.get(name)
        async with self._locks.hold(instance.id, "network disconnect"):
            instance = self._changeable(instance)
            connection = self._connection(network, instance)
            if connection is None:
                if force:
                    return
                raise WrongState(
                    f"{instance.name} is not on the network {network.name}.",
                    hint="`sublet inspect` lists its networks.",
                )
            before = self.connections.endpoint(instance)
            await self._unplug(instance, network, connection)
            await self._follow(instance, before.address)
        self._tell("disconnected", network, instance)

    def _changeable(self, instance: Instance) -> Instance:
        instance = self.instances.get(instance.id)
        if instance.spec.vm and (instance.state in LIVE or instance.state is State.HIBERNATED):
            raise WrongState(
                f"{instance.name} is a VM that is {instance.state}; its cables stay as they are.",
                hint=f"Stop it first: sublet stop {instance.name}. It has them at its next start.",
            )
        if not Mode.of(instance.spec.network).own:
            raise WrongState(
                f"{instance.name} has no network of its own: --network {instance.spec.network}.",
                hint="Make it anew with --network and a network's name.",
            )
        return instance

    def _connection(self, network: NamedNetwork, instance: Instance) -> Connection | None:
        found = (c for c in self.connections.of(instance) if c.network == network.id)
        return next(found, None)

    async def _plug(self, instance: Instance, network: NamedNetwork, what: Connection) -> None:
        if instance.state not in LIVE:
            return
        subnet = network.within(self.parts.network.plan.subnet)
        await self.parts.network.attach(
            instance.id,
            self.parts.containers.places(instance.id).network_namespace,
            str(subnet[what.offset]),
            network=network.number,
            interface=what.interface,
            egress=instance.spec.egress,
        )

    async def _unplug(self, instance: Instance, network: NamedNetwork, what: Connection) -> None:
        if instance.state in LIVE:
            await self.parts.network.detach(instance.id, what.interface)
            await self.parts.network.unregister(instance.id, network.number)
        if network.id == STANDARD.id and networks.is_default(instance.spec.network):
            spec = replace(instance.spec, network=Mode.NONE.value, aliases=())
            self.parts.store.update(replace(instance, spec=spec))
        self.parts.network_store.disconnect(network.id, instance.id)

    async def _follow(self, instance: Instance, before: str) -> None:
        """Let names and ports follow from the networks that a running instance is on now."""
        current = self.parts.store.get(instance.id)
        if current is None or current.state not in LIVE:
            return
        endpoint = self.connections.endpoint(current)
        await self.parts.network.announce(endpoint)
        spec = current.spec
        text = self.connections.resolv_conf(current)
        text = resolving.resolv_conf(text, spec.dns, spec.dns_search)
        self.parts.containers.rewrite(current.id, "resolv.conf", text)
        if endpoint.address != before and spec.ports:
            await self.parts.network.unpublish(current.id)
            await self.parts.network.publish(current.id, endpoint.address, spec.ports)

    def _tell(self, what: str, network: NamedNetwork, instance: Instance) -> None:
        kind = f"network.{what}"
        self.parts.events.publish(kind, instance.id, network=network.name, name=instance.name)
