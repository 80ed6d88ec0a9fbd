"""What a daemon's network is called on the host, derived from its run directory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from sublet.domain.config import DEFAULT_RUN
from sublet.domain.errors import InvalidArgument, NoSuchNetwork
from sublet.domain.names import is_id
from sublet.domain.networks import STANDARD, NamedNetwork


@dataclass(frozen=True, slots=True)
class Identity:
    """Names of one daemon's bridges and nftables tables (one `inet`, one `bridge`).

    `bridge` is the default network's, and what the names of the others begin with. `group` is the
    link group (ip-link(8)) of the bridges and of every veth plugged into one; links on their way
    out are in `group + 1`, so that one request deletes many.
    """

    bridge: str
    table: str
    group: int

    @classmethod
    def of(cls, run: Path) -> Identity:
        """The identity of the daemon whose run directory is `run`."""
        digest = hashlib.sha256(str(run).encode()).hexdigest()[:8]
        group = (int(digest, 16) & 0x7FFF_FFFE) | 0x1000_0000
        if run == DEFAULT_RUN:
            return cls("sublet0", "sublet", group)
        return cls(f"sb{digest}", f"sublet_{digest}", group)

    @property
    def knocks(self) -> int:
        """The nfnetlink log group, of 16 bits, in which the kernel tells of knocks."""
        return (self.group & 0x7FFF) | 0x8000

    def bridge_of(self, number: int) -> str:
        """The bridge of the network of this number; at most 14 characters."""
        return f"{self.bridge}-{number:x}" if number else self.bridge

    def is_bridge(self, link: str) -> bool:
        """Whether this is the name of one of the bridges, there or not."""
        return link == self.bridge or link.startswith(f"{self.bridge}-")


@dataclass(frozen=True, slots=True)
class Segment:
    """One network on the host: its bridge, and what addresses it has. `internal`: no way out."""

    number: int
    bridge: str
    group: int
    subnet: IPv4Network
    gateway: str
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """An identity with its /16 and the networks in it, the default one first: all that the rules
    and the bridges are made of."""

    identity: Identity
    subnet: IPv4Network
    networks: tuple[NamedNetwork, ...] = (STANDARD,)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self.segment(network) for network in self.networks)

    @property
    def default(self) -> Segment:
        return self.segment(STANDARD)

    def segment(self, network: NamedNetwork) -> Segment:
        """The network as it is on this host."""
        return Segment(
            number=network.number,
            bridge=self.identity.bridge_of(network.number),
            group=self.identity.group,
            subnet=network.within(self.subnet),
            gateway=str(network.door(self.subnet)),
            internal=network.internal,
        )

    def numbered(self, number: int) -> Segment:
        """The network of this number. Raises NoSuchNetwork."""
        for network in self.networks:
            if network.number == number:
                return self.segment(network)
        raise NoSuchNetwork(f"There is no network {number} on this host.")


def checked(instance_id: str) -> str:
    """`instance_id`; it becomes part of names and paths. Raises InvalidArgument for no id."""
    if not is_id(instance_id):
        raise InvalidArgument(f"'{instance_id}' is not an instance id.")
    return instance_id


def veth(instance_id: str, interface: int = 0) -> str:
    """The host's end of the cable to an instance's eth<interface>."""
    return f"v{checked(instance_id)}" + (f"{interface:02x}" if interface else "")


def owner(link: str) -> str:
    """The id of the instance that a veth's name tells, or an empty string."""
    return link[1:13] if link[:1] == "v" and is_id(link[1:13]) else ""
