"""The parts of a request that have a notation of their own.

A module by itself: dataclasses, which these are, cost more to import than all that a request
without any of them needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sublet.domain.mounts import parse_long_mount, parse_mount, parse_tmpfs
from sublet.domain.ports import parse_ports
from sublet.domain.privileges import parse_device, parse_ulimit
from sublet.domain.restart import parse_restart


def parsed(
    *,
    ports: Sequence[str],
    volumes: Sequence[str],
    mounts: Sequence[str],
    tmpfs: Sequence[str],
    restart: str,
    ulimits: Sequence[str],
    devices: Sequence[str],
) -> dict[str, Any]:
    """Their part of the request, as the API takes it. Raises InvalidArgument."""
    found: dict[str, Any] = {}
    mounted = [parse_mount(text) for text in volumes]
    mounted += [parse_long_mount(text) for text in mounts] + [parse_tmpfs(text) for text in tmpfs]
    if ports:
        found["ports"] = [asdict(port) for text in ports for port in parse_ports(text)]
    if mounted:
        found["mounts"] = [asdict(mount) for mount in mounted]
    if restart:
        found["restart"] = asdict(parse_restart(restart))
    if ulimits:
        found["ulimits"] = [asdict(parse_ulimit(text)) for text in ulimits]
    if devices:
        found["devices"] = [asdict(parse_device(text)) for text in devices]
    return found
