"""Which subnet a daemon takes, and the addresses and user ids that follow from it.

A daemon has one /16. Its place in the pool is also the daemon's *region* of user ids, so
that two daemons on one host share no addresses, and up to fourteen no ids. Within the
daemon each instance has a slot (slots.py). The region is kept for good, because files have those
ids; the subnet may change when another takes it while the daemon is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from sublet.domain import slots
from sublet.domain.errors import InvalidArgument

POOL = tuple(IPv4Network(f"10.{second}.0.0/16") for second in range(208, 255))
"""The subnets that a daemon chooses from, in this order."""

REGIONS = 14
"""Regions of user ids: more than that do not fit into 32 bits. Daemons whose places in the pool
are so far apart have the same ids, but no file, mount or namespace in common."""

IDS = 65536
"""User ids of an instance."""

FIRST_ID = 0x2000_0000
"""The first user id of any instance of any daemon."""

_REGION_SLOTS = 4096


def choose(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first /16 of the pool that overlaps nothing in `taken` (routes, addresses), and whose
    user ids no other of the pool has that is taken, while there is such a one.

    A default route counts for nothing. Where only wider routes stand in the way (a VPN's
    10.0.0.0/8), the first /16 that shadows no narrower one is taken: ours is more specific.
    Raises InvalidArgument when there is none.
    """
    networks = [network for network in taken if network.prefixlen > 0]
    narrow = [network for network in networks if network.prefixlen >= 16]
    for obstacles in (networks, narrow):
        free = [each for each in POOL if not _overlaps(each, obstacles)]
        if free:
            shared = {region(each) for each in POOL if _overlaps(each, narrow)}
            return min(free, key=lambda each: region(each) in shared)
    raise InvalidArgument(
        f"A daemon needs a /16, and the host has routes into all {len(POOL)} that it chooses from, "
        f"{POOL[0]} to {POOL[-1]}.",
        hint="`ip route` shows who has them: other daemons, for the most part. End one that is not "
        "needed, or name a free /16 as `subnet` in config.toml, or in SUBLET_SUBNET.",
    )


def _overlaps(subnet: IPv4Network, others: Iterable[IPv4Network]) -> bool:
    return any(subnet.overlaps(other) for other in others)


def check(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> IPv4Network:
    """`subnet`, if no link of the host has it. Raises InvalidArgument."""
    if occupied(subnet, taken):
        raise InvalidArgument(
            f"The subnet {subnet} is in use on this host.",
            hint="Name a free /16 as `subnet` in config.toml, or in SUBLET_SUBNET.",
        )
    return subnet


def occupied(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> bool:
    """Whether something has exactly this /16, or its first /20: another daemon."""
    own = {subnet, IPv4Network((int(subnet.network_address), 20))}
    return any(network in own for network in taken)


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The bridge's own address: the first of the subnet."""
    return subnet[1]


def address(subnet: IPv4Network, slot: int) -> IPv4Address:
    """The address of the instance in `slot`: slot 1 has the one after the gateway."""
    return subnet[_checked(slot) + 1]


def region(subnet: IPv4Network) -> int:
    """The region of user ids, 0 to 13: the subnet's place in the pool, else a hash's."""
    if subnet in POOL:
        return POOL.index(subnet) % REGIONS
    digest = hashlib.sha256(subnet.network_address.packed).digest()
    return int.from_bytes(digest[:4], "big") % REGIONS


def uid_base(region: int, slot: int) -> int:
    """The first of the IDS user ids (and group ids) of the instance in `slot`."""
    return FIRST_ID + (region * _REGION_SLOTS + _checked(slot)) * IDS


def mac(ip: IPv4Address) -> str:
    """The MAC address that belongs to an address: locally administered, 02:42 and the address."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *ip.packed))


def _checked(slot: int) -> int:
    if not 1 <= slot <= slots.COUNT:
        raise InvalidArgument(f"slot {slot}: slots go from 1 to {slots.COUNT}.")
    return slot
