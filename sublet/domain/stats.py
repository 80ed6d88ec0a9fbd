"""What instances use now, from two looks at their counters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """`cpu` in seconds; `memory` without the page cache that can be dropped at once; bytes read
    and written, received and sent since the instance's start."""

    cpu: float = 0.0
    memory: int = 0
    pids: int = 0
    read: int = 0
    written: int = 0
    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """The counters of an instance at a time (seconds of a steady clock)."""

    time: float
    counters: Counters


def cpu_percent(before: Look | None, now: Look) -> float:
    """The share of one CPU used between two looks, in percent: two whole CPUs are 200."""
    if before is None or now.time <= before.time:
        return 0.0
    used = now.counters.cpu - before.counters.cpu  # less than nothing: it was started again
    return max(0.0, 100.0 * used / (now.time - before.time))


def memory_percent(used: int, limit: int) -> float:
    """The share of the limit that is used, in percent."""
    return 100.0 * used / limit if limit else 0.0
