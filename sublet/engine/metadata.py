"""Who calls the metadata service, and what there is to say to them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from sublet.domain import networks, slots, tokens
from sublet.domain.instance import Instance
from sublet.domain.metadata import Interface, View
from sublet.domain.networks import STANDARD, NamedNetwork
from sublet.domain.notice import Notice
from sublet.domain.subnets import mac
from sublet.drivers.network import Caller, Place
from sublet.engine import plan, seeds
from sublet.engine.connections import Connections


class Metadata:
    """The instances of one daemon, as each sees itself; `notice` finds that of an instance, by its
    id. Tokens outlive the daemon, but not the host's next boot: their key is in the run
    directory."""

    def __init__(self, connections: Connections, notice: Callable[[str], Notice | None]) -> None:
        self.parts = connections.parts
        self.config = connections.parts.config
        self._connections = connections
        self._notice = notice
        self.noticed: Callable[[str], None] = lambda instance_id: None
        """Is told that an instance, by its id, has read of its notice."""
        self._key = _kept(self.config.run / "metadata.key")

    def who(self, caller: Caller) -> Instance | None:
        """The instance that has this address on this network."""
        for network in self.parts.network.plan.networks:
            if network.number == caller.network:
                return self._at(network, IPv4Address(caller.address))
        return None

    def _at(self, network: NamedNetwork, address: IPv4Address) -> Instance | None:
        subnet = network.within(self.parts.network.plan.subnet)
        offset = int(address) - int(subnet.network_address)
        if connection := self.parts.network_store.at(network.id, offset):
            return self.parts.store.get(connection.instance)
        if network.id != STANDARD.id:
            return None
        for instance in self.parts.store.all():
            if slots.offset(instance.slot) == offset:
                return instance if networks.is_default(instance.spec.network) else None
        return None

    def view(self, instance: Instance) -> View:
        """The instance as it sees itself."""
        image = self.parts.image_store.get(instance.digest)
        spec, places = instance.spec, self._connections.endpoint(instance).places
        return View(
            instance=instance.id,
            image=instance.digest,
            size=str(spec.size),
            market=spec.market.value,
            hostname=plan.hostname(instance),
            architecture=image.config.architecture if image else "",
            launched=instance.started or instance.created,
            interfaces=[self._interface(place) for place in places],
            keys=spec.ssh_keys,
            labels=spec.labels,
            user_data=seeds.user_data(self.config.root, instance.id),
            notice=self._notice(instance.id),
        )

    def _interface(self, place: Place) -> Interface:
        known = self.parts.network.plan
        network = next(each for each in known.networks if each.number == place.network)
        return Interface(
            number=place.interface,
            mac=mac(IPv4Address(place.address)),
            address=place.address,
            network=network.id,
            subnet=str(network.within(known.subnet)),
        )

    def token(self, instance: Instance, now: float, ttl: int) -> str:
        """A token for the instance, good for `ttl` seconds."""
        return tokens.issue(self._key, instance.id, now + ttl)

    def remaining(self, instance: Instance, token: str, now: float) -> float:
        """For how many seconds the instance's token is good; 0: it is none."""
        return tokens.remaining(self._key, instance.id, token, now)


def _kept(file: Path) -> bytes:
    """The key in the file, which is made where there is none that is whole."""
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != tokens.KEY:
        key, new = secrets.token_bytes(tokens.KEY), file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(key)
        new.replace(file)
    return key
