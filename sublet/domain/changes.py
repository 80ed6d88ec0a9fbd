"""What an instance has changed of its image's files, as `diff` shows it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

SYSTEM = ("/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Where something is mounted in every instance, so that there must be something."""


@dataclass(frozen=True, slots=True)
class Made:
    """What starting an instance makes in its writable layer: `points` to mount at, empty, and
    `parents`, whose times that changes."""

    points: frozenset[str]
    parents: frozenset[str]


def made(destinations: Iterable[str]) -> Made:
    """What is made for mounts at these destinations, and for the system's."""
    points = set(SYSTEM)
    for path in (*SYSTEM, *destinations):
        while path != "/":
            points.add(path)
            path = posixpath.dirname(path)
    return Made(frozenset(points), frozenset(map(posixpath.dirname, points)))
