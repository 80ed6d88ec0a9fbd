"""The parts of a request that have a notation of their own.

A module by itself: dataclasses, which these are, cost more to import than all that a request
without any of them needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sublet.domain.backup_plan import BackupPlan, parse_plan
from sublet.domain.budget import parse_budget
from sublet.domain.egress import parse_egress
from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import parse_long_mount, parse_mount, parse_tmpfs
from sublet.domain.ports import parse_ports
from sublet.domain.privileges import parse_device, parse_ulimit
from sublet.domain.restart import parse_restart


def ports_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Published ports, as the API takes them. Raises InvalidArgument."""
    return [asdict(port) for text in texts for port in parse_ports(text)]


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
        found["ports"] = ports_of(ports)
    if mounted:
        found["mounts"] = [asdict(mount) for mount in mounted]
    if restart:
        found["restart"] = asdict(parse_restart(restart))
    if ulimits:
        found["ulimits"] = [asdict(parse_ulimit(text)) for text in ulimits]
    if devices:
        found["devices"] = [asdict(parse_device(text)) for text in devices]
    return found


def plan_of(texts: Sequence[str], keep: str, *, none: bool = False) -> dict[str, Any]:
    """A backup plan, as the API takes it; with `none` one without any moment, where no `texts` name
    one. Raises InvalidArgument."""
    if none and not texts and not keep:
        return asdict(BackupPlan())
    if not texts:
        raise InvalidArgument(
            "There is a --backup-keep, but no --backup.", hint="Add --backup every=6h."
        )
    return asdict(parse_plan(list(texts), keep))


def budget_of(text: str) -> dict[str, Any]:
    """A budget such as `5/month`, as the API takes it. Raises InvalidArgument."""
    return asdict(parse_budget(text))


def egress_of(texts: str | Sequence[str]) -> list[str] | None:
    """A policy for connections outwards, as the API takes it; None for `default`. Raises
    InvalidArgument."""
    found = parse_egress([texts] if isinstance(texts, str) else texts)
    return None if found is None else list(found)
