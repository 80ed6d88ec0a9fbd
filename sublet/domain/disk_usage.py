"""What takes room on the host's disk, and how much of it could be had back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """One kind of thing: how many there are, how many of them are in use, their bytes, and
    the bytes that a prune of all that is not in use would free."""

    kind: str
    count: int
    active: int
    size: int
    reclaimable: int


@dataclass(frozen=True, slots=True)
class Freed:
    """What a prune of one kind of thing took away, or would: names or ids, and the bytes that
    this frees on the disk."""

    kind: str
    ids: tuple[str, ...]
    size: int = 0
