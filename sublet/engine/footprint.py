"""What an instance takes of its host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sublet.domain.footprint import Footprint
from sublet.domain.instance import LIVE, Instance
from sublet.drivers import footprint
from sublet.drivers.usage import allocated
from sublet.drivers.vm.starting import Place
from sublet.engine.instances import Instances


async def measure(instances: Instances, row: Instance) -> Footprint:
    """The instance's memory and disk now, its volumes without a name included."""
    parts = instances.parts
    volumes = [parts.volumes.directory(each) for each in instances.lifecycle.volumes.own(row)]
    image = parts.image_file(row.digest)
    return await asyncio.to_thread(
        _measure, _pids(instances, row), image, parts.machines.place(row.id), volumes
    )


def _pids(instances: Instances, row: Instance) -> set[int]:
    if row.state not in LIVE:
        return set()
    return {*instances.parts.containers.cgroups.pids(row.id), row.pid, row.supervisor} - {0}


def _measure(pids: set[int], image: Path, at: Place, volumes: list[Path]) -> Footprint:
    """Reads a file for each process, and looks at every file of the instance."""
    memory, shared_memory = footprint.memory(pids)
    shared_disk = {f"image {image.stem}": _size(image)}
    if common := _size(at.base):  # a further name of what all have that were started from it
        shared_disk[f"saved memory {at.base.stat().st_ino}"] = common
    return Footprint(
        processes=len(pids),
        memory=memory,
        disk=allocated(at.store, at.state, *volumes) - common,
        shared_memory=shared_memory,
        shared_disk={key: size for key, size in shared_disk.items() if size},
    )


def _size(file: Path) -> int:
    """Bytes that a file takes on the disk; 0 where there is none."""
    try:
        return os.stat(file).st_blocks * 512
    except FileNotFoundError:
        return 0
