"""What an instance has changed of its image's files, as `diff` shows it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A change as `diff` has it: `kind`, `path`, `type`, `size`."""

SYSTEM = ("/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Where something is mounted in every instance, so that there must be something."""


@dataclass(frozen=True, slots=True)
class Made:
    """What starting an instance makes in its writable layer: `points` to mount at, empty, and
    `parents`, whose times that changes."""

    points: frozenset[str]
    parents: frozenset[str]


def lies_at(path: str, chosen: str) -> bool:
    """Whether an absolute path is the chosen one, lies below it, or is on the way there."""
    outer, inner = f"{chosen.rstrip('/')}/", f"{path.rstrip('/')}/"
    return inner.startswith(outer) or outer.startswith(inner)


def is_chosen(row: Row, paths: Sequence[str]) -> bool:
    """Whether a change is at or below one of `paths`; without any, all are. A new directory on the
    way to one is needed for it."""
    return not paths or any(_is_meant(row, path) for path in paths)


def _is_meant(row: Row, path: str) -> bool:
    if f"{row['path']}/".startswith(f"{path.rstrip('/')}/"):
        return True
    return row["kind"] == "A" and row["type"] == "directory" and lies_at(row["path"], path)


def made(destinations: Iterable[str]) -> Made:
    """What is made for mounts at these destinations, and for the system's."""
    points = set(SYSTEM)
    for path in (*SYSTEM, *destinations):
        while path != "/":
            points.add(path)
            path = posixpath.dirname(path)
    return Made(frozenset(points), frozenset(map(posixpath.dirname, points)))
