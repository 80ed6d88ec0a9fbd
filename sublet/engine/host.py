"""What the host is, and what of it is sold."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

from sublet.domain.capacity import rentable
from sublet.domain.config import Config
from sublet.domain.errors import ToolMissing
from sublet.domain.spec import Market
from sublet.engine.instances import Instances


def memory() -> int:
    """The host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def describe(config: Config, instances: Instances) -> dict[str, Any]:
    """Capacity in vCPUs and bytes, kernel, cgroup layout, runtime, and how ids are mapped."""
    parts = instances.parts
    cpus = os.cpu_count() or 1
    total = rentable(cpus, memory(), config.overcommit, config.reserve)
    mapped = parts.layers.mapped
    return {
        "cpus": cpus,
        "memory": memory(),
        "disk": dict(zip(("size", "free"), parts.containers.pool.space(), strict=True)),
        "rentable": asdict(total),
        "sold": asdict(instances.sold(Market.ON_DEMAND)),
        "spot": asdict(instances.sold(Market.SPOT)),
        "free": asdict(instances.free()),
        "draining": instances.market.draining,
        "pressure": instances.market.pressed or None,
        "instances": len(instances.list()),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cgroup": parts.containers.cgroups.layout,
        "runtime": parts.containers.supervisor.version(),
        "pool": parts.containers.pool.kind,
        "layers": {None: "not tried yet", True: "id-mapped squashfs", False: "unpacked"}[mapped],
        "acceleration": await acceleration(instances),
    }


async def acceleration(instances: Instances) -> dict[str, str]:
    """What VMs run on, and why; `none` where they cannot run at all."""
    try:
        found = await instances.parts.machines.acceleration()
    except ToolMissing as error:
        return {"kind": "none", "reason": error.message}
    return {"kind": str(found.kind), "reason": found.reason}
