"""What an instance takes of its host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sublet.domain.footprint import Footprint
from sublet.domain.instance import LIVE, Instance
from sublet.drivers import footprint
from sublet.drivers.usage import allocated
from sublet.engine.instances import Instances

BASE = "base"
"""The file of saved memory that a VM was started from, beside its disk: a further name of it."""


async def measure(instances: Instances, row: Instance) -> Footprint:
    """The instance's memory and disk now, its volumes without a name included."""
    parts = instances.parts
    at = parts.containers.places(row.id)
    volumes = [parts.volumes.directory(each) for each in instances.lifecycle.volumes.own(row)]
    image = instances.images.files.path(row.digest)
    return await asyncio.to_thread(
        _measure, _pids(instances, row), image, at.layer.directory, [at.state, *volumes]
    )


def _pids(instances: Instances, row: Instance) -> set[int]:
    if row.state not in LIVE:
        return set()
    return {*instances.parts.containers.cgroups.pids(row.id), row.pid, row.supervisor} - {0}


def _measure(pids: set[int], image: Path, layer: Path, others: list[Path]) -> Footprint:
    """Reads a file for each process, and looks at every file of the instance."""
    memory, shared_memory = footprint.memory(pids)
    shared_disk = {f"image {image.stem}": _size(image)}
    base = layer / BASE
    if common := _size(base):
        shared_disk[f"saved memory {base.stat().st_ino}"] = common
    return Footprint(
        processes=len(pids),
        memory=memory,
        disk=allocated(layer, *others) - common,
        shared_memory=shared_memory,
        shared_disk={key: size for key, size in shared_disk.items() if size},
    )


def _size(file: Path) -> int:
    """Bytes that a file takes on the disk; 0 where there is none."""
    try:
        return os.stat(file).st_blocks * 512
    except FileNotFoundError:
        return 0
