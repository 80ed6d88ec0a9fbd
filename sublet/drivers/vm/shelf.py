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


def leftovers(pool: Pool, busy: Collection[str]) -> list[Leftover]:
    """Memory images and disks that were never finished, and that nobody is making; `busy` are
    the keys of templates and the ids of instances and snapshots that something is done to."""
    found = []
    for pattern in ("templates/*", "instances/*/*", "snapshots/*/*", "blanks/*"):
        for path in sorted(pool.directory.glob(pattern + PARTIAL)):
            own = pattern.count("*") == 1
            owner = "" if own else path.parent.name
            if (path.name.removesuffix(PARTIAL) if own else owner) not in busy:
                found.append(Leftover("half-made file", str(path), owner))
    return found


def _shapes(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in files.entries(directory):
        if not key.endswith(PARTIAL):
            try:
                yield key, dict(json.loads(MemoryImage(directory / key).shape))
            except (MemoryUnusable, ValueError, TypeError, OSError):
                continue
