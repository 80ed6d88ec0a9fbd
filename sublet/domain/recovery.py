"""What a new daemon makes of an instance that an earlier one left."""

from __future__ import annotations

from enum import StrEnum

from sublet.domain.instance import HELD, Instance, State


class Fate(StrEnum):
    """`adopt`: it runs, watch it; `finish`: it ended unseen; `stop`: its start was cut off, and
    it stays; `remove`: it goes; `complete-removal`: it was going; `leave`: it is well;
    `sleep`: its memory is on disk, or was to be."""

    ADOPT = "adopt"
    FINISH = "finish"
    STOP = "stop"
    REMOVE = "remove"
    COMPLETE_REMOVAL = "complete-removal"
    LEAVE = "leave"
    SLEEP = "sleep"


def fate(instance: Instance, *, alive: bool) -> Fate:
    """What becomes of it; `alive`: its supervisor still runs."""
    if instance.state in (State.HIBERNATING, State.HIBERNATED) and not alive:
        return Fate.SLEEP
    if instance.state in HELD:
        return Fate.ADOPT if alive else Fate.FINISH
    if instance.state is State.PENDING:
        return Fate.STOP if instance.kept else Fate.REMOVE
    if instance.state is State.SHUTTING_DOWN:
        return Fate.COMPLETE_REMOVAL
    if instance.state is State.STOPPED and instance.spec.remove and instance.finished:
        return Fate.REMOVE  # created with --rm and never started, it stays
    return Fate.LEAVE
