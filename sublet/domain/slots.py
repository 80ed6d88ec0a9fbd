"""Slots: the numbers from which an instance's address and user ids follow."""

from __future__ import annotations

from sublet.domain.errors import InsufficientCapacity

COUNT = 4000
"""Instances that a host can have, stopped ones too; slots go from 1 to this."""


def offset(slot: int) -> int:
    """The place of a slot's address in the default network: the gateway has the first."""
    return slot + 1


def following(last: int, taken: set[int]) -> int:
    """The next free slot after `last`, beginning again after the highest.

    Not the smallest: an address that was given back a moment ago may still have
    connections in the kernel's tables. Raises InsufficientCapacity when all are taken.
    """
    for step in range(COUNT):
        slot = (last + step) % COUNT + 1
        if slot not in taken:
            return slot
    raise InsufficientCapacity(f"This host holds {COUNT} instances at most.")
