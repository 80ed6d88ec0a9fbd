"""Choosing the subnet, and raising the bridges in it. Blocks for some milliseconds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sublet.domain import subnets
from sublet.domain.errors import Busy
from sublet.domain.networks import NamedNetwork
from sublet.drivers.network import cables, links
from sublet.drivers.network.identity import Identity, Plan

_LOCKED, _DEADLINE = "/run", 10.0
"""The directory that daemons lock while they choose, and how long one waits, in seconds."""


def raise_bridges(
    identity: Identity, wanted: str, preferred: str, networks: tuple[NamedNetwork, ...]
) -> Plan:
    """The bridges stand, in `wanted`, else in the /16 that they have, else in `preferred` if it
    is free, else in a free one.

    Bridges that have cables keep their subnets whatever is wanted. Raises InvalidArgument
    when the subnet is another's, or none is free.
    """
    with _locked():
        plan = Plan(identity, _subnet(identity, wanted, preferred), networks)
        for segment in plan.segments:
            links.ensure_bridge(segment)
    return plan


def taken() -> list[IPv4Network]:
    """What networks the host knows, its resolvers included."""
    return links.taken() + resolvers(host_resolv_conf())


def resolvers(text: str) -> list[IPv4Network]:
    """The IPv4 resolvers that a resolv.conf names: no subnet of ours may hide them."""
    found = []
    for word, *values in (line.split() for line in text.splitlines() if line.strip()):
        if word == "nameserver" and values:
            with contextlib.suppress(ValueError):
                found.append(IPv4Network(IPv4Address(values[0])))
    return found


def host_resolv_conf() -> str:
    """The host's /etc/resolv.conf, empty when it has none."""
    try:
        return Path("/etc/resolv.conf").read_text(errors="replace")
    except OSError:
        return ""


def _subnet(identity: Identity, wanted: str, preferred: str) -> IPv4Network:
    standing = links.bridge_subnet(identity)
    if standing and (wanted in ("", str(standing)) or cables.owned(identity)):
        return standing
    if standing:
        links.delete_all(identity)
    known = taken()
    if wanted:
        return subnets.check(IPv4Network(wanted), known)
    if preferred and not subnets.occupied(IPv4Network(preferred), known):
        return IPv4Network(preferred)
    return subnets.choose(known)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """No other daemon chooses a subnet meanwhile (flock(2) on a directory: no file is left)."""
    fd = os.open(_LOCKED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _DEADLINE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise Busy(f"{_LOCKED} stayed locked for {_DEADLINE:g} s.") from error
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)
