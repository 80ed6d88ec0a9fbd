"""Waking by a connection: which instances sleep with their ports held, and when one that could not
be woken is tried again. Pure."""

from __future__ import annotations

from sublet.domain.instance import Instance, State

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a failure in which further knocks change nothing: they double with each."""

ASLEEP = frozenset({State.STOPPED, State.HIBERNATED})
"""States in which a knock wakes it."""

_ENDING = frozenset({State.SHUTTING_DOWN, State.TERMINATED})


def holds_ports(instance: Instance) -> bool:
    """Whether its ports stay its own while it does not run: it ran before, and may be woken."""
    spec = instance.spec
    known = bool(spec.ports) and all(port.host_port for port in spec.ports)
    return spec.wake and known and bool(instance.started) and instance.state not in _ENDING


def sleeps(instance: Instance) -> bool:
    """Whether a knock at one of its ports wakes it now."""
    return holds_ports(instance) and instance.state in ASLEEP


def pause(failures: int) -> float:
    """Seconds until an instance is tried again that could not be woken so many times in a row."""
    return min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE)
