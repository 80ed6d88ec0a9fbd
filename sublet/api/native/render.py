"""What goes out: plain data with the keys that design section 11 fixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sublet.api.native import details
from sublet.domain.budget import Standing
from sublet.domain.change import expires
from sublet.domain.event import Event
from sublet.domain.image import Image
from sublet.domain.instance import Instance
from sublet.domain.stats import memory_percent
from sublet.domain.units import rfc3339
from sublet.engine.collecting import Pruned
from sublet.engine.instances import Instances
from sublet.engine.watching import Use


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
        "health": row.health.value,
        "exit_code": row.exit_code,
        "ports": [asdict(port) for port in row.spec.ports],
        "created": time(row.created),
        "started": time(row.started),
        "finished": time(row.finished),
        "labels": dict(row.spec.labels),
        "pooled": bool(row.pool),
        "tty": row.spec.tty,
        "stdin": row.spec.stdin,
    }


def inspection(row: Instance, instances: Instances) -> dict[str, Any]:
    """The answer to `inspect`."""
    parts, spec = instances.parts, row.spec
    return {
        **instance(row),
        "digest": row.digest,
        "pid": row.pid or None,
        **details.networks(row, instances),
        "egress": list(spec.egress) if spec.egress else None,
        "hostname": spec.hostname or row.id,
        "env": list(spec.env),
        "user": spec.user,
        "mounts": [asdict(mount) for mount in spec.mounts],
        "limits": {
            "cpus": spec.size.cpus,
            "memory": spec.size.memory,
            "disk": spec.size.disk,
            "pids": spec.pids_limit,
        },
        "memory": parts.containers.cgroups.memory(row.id) if row.pid else 0,
        "uid_base": parts.network.uid_base(row.slot),
        "labels": details.labels(row, instances),
        "options": details.options(spec),
        "warnings": instances.warnings(row),
        "log": asdict(spec.log),
        "ttl": spec.ttl or None,
        "lease": spec.lease or None,
        "backup": asdict(spec.backup) if spec.backup else None,
        "expires": time(expires(row.created, spec.ttl)),
        "wanted": row.wanted,
        "reason": row.reason,
        "busy_because": None,
    }


def image(row: Image, repo_digests: Sequence[str] = ()) -> dict[str, Any]:
    """One entry of `images`."""
    return {
        "digest": row.digest,
        "name": row.names[0] if row.names else None,
        "names": list(row.names),
        "repo_digests": list(repo_digests),
        "size": row.size,
        "created": time(row.created),
        "architecture": row.config.architecture,
        "labels": row.config.own_labels,
        "disk": asdict(row.config.disk) if row.config.disk else None,
    }


def image_inspection(row: Image, repo_digests: Sequence[str], file: Path) -> dict[str, Any]:
    """The answer to `image inspect`: the keys of `images`, and the OCI config as it is."""
    disk, place = row.config.disk, {"offset": row.offset, "length": row.length}
    return {
        **image(row, repo_digests),
        "os": "linux",
        "file": str(file),
        "squashfs": None if disk else place,
        "disk": {**asdict(disk), **place} if disk else None,
        "config": row.config.inner(),
        "history": [step.to_dict() for step in row.config.history],
    }


def image_history(row: Image) -> list[dict[str, Any]]:
    """The steps that made an image, the last first.

    An image is one file system: of the steps that changed files, only a lone one's bytes
    are known.
    """
    steps = row.config.history
    layers = [step for step in steps if not step.empty_layer]
    sizes = {True: 0, False: row.length if len(layers) == 1 else None}
    return [
        {
            "digest": row.digest if index == len(steps) - 1 else None,
            "created": step.created or None,
            "created_by": step.created_by,
            "size": sizes[step.empty_layer],
            "comment": step.comment,
        }
        for index, step in reversed(list(enumerate(steps)))
    ]


def pruned(found: Pruned) -> dict[str, Any]:
    """The outcome of an image prune, or of its dry run."""
    return {
        "images": [image(row) for row in found.images],
        "cache": found.cache,
        "size": found.size,
    }


def use(row: Use) -> dict[str, Any]:
    """What an instance uses, one entry of `stats`."""
    limit, counted = row.instance.spec.memory, row.counters
    return {
        "id": row.instance.id,
        "name": row.instance.name,
        "cpu_percent": round(row.cpu_percent, 2),
        "memory": counted.memory,
        "memory_limit": limit,
        "memory_percent": round(memory_percent(counted.memory, limit), 2),
        "network_received": counted.received,
        "network_sent": counted.sent,
        "block_read": counted.read,
        "block_written": counted.written,
        "pids": counted.pids,
    }


def budget(standing: Standing, reaches: float | None = None) -> dict[str, Any]:
    """How a budget stands."""
    return {
        "subject": standing.subject,
        "amount": standing.budget.amount,
        "period": standing.budget.period.value,
        "spent": round(standing.spent, 9),
        "share": round(standing.share, 6),
        "state": standing.level.name.lower(),
        "renews": rfc3339(standing.renews),
        "reaches": rfc3339(reaches) if reaches else None,
    }


def event(row: Event) -> dict[str, Any]:
    return {**asdict(row), "time": rfc3339(row.time), "detail": dict(row.detail)}
