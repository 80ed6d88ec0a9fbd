"""What a new daemon makes of an instance that an earlier one left."""

from __future__ import annotations

from enum import StrEnum

from sublet.domain.instance import LIVE, Instance, State


class Fate(StrEnum):
    """`adopt`: it runs, watch it; `finish`: it ended unseen; `stop`: its start was cut off, and
    it stays; `remove`: it goes; `complete-removal`: it was going; `leave`: it is well."""

    ADOPT = "adopt"
    FINISH = "finish"
    STOP = "stop"
    REMOVE = "remove"
    COMPLETE_REMOVAL = "complete-removal"
    LEAVE = "leave"


def fate(instance: Instance, *, alive: bool) -> Fate:
    """What becomes of it; `alive`: its supervisor still runs."""
    if instance.state in LIVE:
        return Fate.ADOPT if alive else Fate.FINISH
    if instance.state is State.PENDING:
        return Fate.STOP if instance.kept else Fate.REMOVE
    if instance.state is State.SHUTTING_DOWN:
        return Fate.COMPLETE_REMOVAL
    if instance.state is State.STOPPED and instance.spec.remove and instance.finished:
        return Fate.REMOVE  # created with --rm and never started, it stays
    return Fate.LEAVE
