"""The templates as they lie in their directory: whose they are, and which have to go."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sublet.domain.errors import MemoryUnusable
from sublet.domain.leftover import Leftover
from sublet.drivers import files
from sublet.drivers.pool import Pool
from sublet.drivers.vm.memory import PARTIAL, MemoryImage
from sublet.drivers.vm.shape import Platform

COUNT = 64
"""Templates that are kept at most."""


def of_image(directory: Path, digest: str) -> list[str]:
    """The keys of the templates of one image."""
    return [key for key, shape in _shapes(directory) if shape.get("image") == digest]


def surplus(directory: Path, platform: Platform, limit: int, busy: Collection[str]) -> list[str]:
    """The names in the directory that have to go: half-made, another platform's, and the least
    recently used ones beyond `limit` bytes or `COUNT`; what is `busy` counts, but stays."""
    here = dataclasses.asdict(platform)
    good = {key for key, shape in _shapes(directory) if shape.get("platform") == here}
    names = files.entries(directory)
    gone = [name for name in names if name not in good and name.removesuffix(PARTIAL) not in busy]
    newest_first = sorted(good, key=lambda key: (directory / key).stat().st_mtime, reverse=True)
    total = 0
    for number, key in enumerate(newest_first):
        size = MemoryImage(directory / key).stored
        if (total + size > limit or number >= COUNT) and key not in busy:
            gone.append(key)
        else:
            total += size
    return gone


def leftovers(pool: Pool, making: Collection[str], busy: Collection[str]) -> list[Leftover]:
    """What of memory images and disks was never finished, and memory of instances that do not
    hibernate. `making` are the templates that are being made, `busy` the ids of instances that
    run, that hibernate, or that something is done to. Snapshots look after their own."""
    templates, instances = pool.directory / "templates", pool.directory / "instances"
    found = [
        Leftover("half-made template", str(templates / name))
        for name in files.entries(templates)
        if name.endswith(PARTIAL) and name.removesuffix(PARTIAL) not in making
    ]
    for path in sorted([*instances.glob(f"*/*{PARTIAL}"), *instances.glob("*/memory-image")]):
        if path.parent.name not in busy:
            kind = "half-made file" if path.name.endswith(PARTIAL) else "memory image"
            found.append(Leftover(kind, str(path), path.parent.name))
    return found


def _shapes(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in files.entries(directory):
        if not key.endswith(PARTIAL):
            try:
                yield key, dict(json.loads(MemoryImage(directory / key).shape))
            except (MemoryUnusable, ValueError, TypeError, OSError):
                continue
