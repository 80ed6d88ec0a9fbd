"""What a daemon's network is called on the host, derived from its run directory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from sublet.domain import subnets
from sublet.domain.config import DEFAULT_RUN
from sublet.domain.errors import InvalidArgument
from sublet.domain.names import is_id


@dataclass(frozen=True, slots=True)
class Identity:
    """Names of one daemon's bridge and nftables tables (one `inet`, one `bridge`).

    `group` is the link group (ip-link(8)) of the bridge and of every veth plugged into it;
    links on their way out are in `group + 1`, so that one request deletes many.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """An identity with its subnet: all that the rules and the bridge are made of."""

    identity: Identity
    subnet: IPv4Network

    @property
    def gateway(self) -> str:
        return str(subnets.gateway(self.subnet))


def checked(instance_id: str) -> str:
    """`instance_id`; it becomes part of names and paths. Raises InvalidArgument for no id."""
    if not is_id(instance_id):
        raise InvalidArgument(f"'{instance_id}' is not an instance id.")
    return instance_id


def veth(instance_id: str) -> str:
    """The host's end of an instance's cable."""
    return f"v{checked(instance_id)}"


def owner(link: str) -> str:
    """The id of the instance that a veth's name tells, or an empty string."""
    return link[1:] if link[:1] == "v" and is_id(link[1:]) else ""
