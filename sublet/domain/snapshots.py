"""Snapshots: points in time of an instance's files, and the forks that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of an instance (`instance` its id) as they were at `created`, seconds since the
    epoch. `volumes` names those without a name that it holds copies of; all others are shared
    with the instance. It is `complete` once all is copied. `memory`: it holds that of a VM, too."""

    id: str
    name: str
    instance: str
    created: float
    complete: bool = False
    volumes: tuple[str, ...] = ()
    memory: bool = False


def forked(
    spec: InstanceSpec, name: str, ports: tuple[Port, ...] | None, lease: str | None = None
) -> InstanceSpec:
    """What a fork asks for: all that its source did, but under a name of its own.

    A port of the host cannot answer for two: unless `ports` says otherwise, the fork's are
    published where the host chooses. The host name follows the id. `lease`: another one than the
    source's, empty for none.
    """
    if ports is None:
        ports = tuple(replace(port, host_port=0) for port in spec.ports)
    lease = spec.lease if lease is None else lease
    return replace(spec, name=name, hostname="", ports=ports, lease=lease)
