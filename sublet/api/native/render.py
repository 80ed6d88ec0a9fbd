"""What goes out: plain data with the keys that design section 11 fixes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sublet.domain.event import Event
from sublet.domain.image import Image
from sublet.domain.instance import Instance
from sublet.domain.units import rfc3339
from sublet.engine.instances import Instances


def time(seconds: float) -> str | None:
    return rfc3339(seconds) if seconds else None


def instance(row: Instance) -> dict[str, Any]:
    """One entry of `ps`."""
    return {
        "id": row.id,
        "name": row.name,
        "image": row.image,
        "command": list(row.spec.command),
        "state": row.state.value,
        "isolation": row.spec.isolation.value,
        "market": row.spec.market.value,
        "size": str(row.spec.size),
        "exit_code": row.exit_code,
        "ports": [asdict(port) for port in row.spec.ports],
        "created": time(row.created),
        "started": time(row.started),
        "finished": time(row.finished),
    }


def inspection(row: Instance, instances: Instances) -> dict[str, Any]:
    """The answer to `inspect`."""
    parts, spec = instances.parts, row.spec
    return {
        **instance(row),
        "digest": row.digest,
        "pid": row.pid or None,
        "address": parts.network.address(row.slot),
        "hostname": spec.hostname or row.id,
        "env": list(spec.env),
        "user": spec.user,
        "mounts": [asdict(mount) for mount in spec.mounts],
        "limits": {
            "cpus": spec.size.cpus,
            "memory": spec.size.memory,
            "pids": spec.pids_limit,
        },
        "memory": parts.containers.cgroups.memory(row.id) if row.pid else 0,
        "uid_base": parts.network.uid_base(row.slot),
        "tty": spec.tty,
        "reason": row.reason,
        "notice": None,
        "busy_because": None,
    }


def image(row: Image) -> dict[str, Any]:
    """One entry of `images`."""
    return {
        "digest": row.digest,
        "name": row.names[0] if row.names else None,
        "names": list(row.names),
        "size": row.size,
        "created": time(row.created),
        "architecture": row.config.architecture,
    }


def event(row: Event) -> dict[str, Any]:
    return {**asdict(row), "time": rfc3339(row.time), "detail": dict(row.detail)}
