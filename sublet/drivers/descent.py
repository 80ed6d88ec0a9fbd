"""What a process has started, killed with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from sublet.drivers import processes

_ROUNDS = 20
"""Looks at what else there is: each one stops what it finds, so that it forks no more."""


def kill(pid: int, near: Callable[[], Iterable[int]]) -> None:
    """Kill the process, those of its session, and all that descend from them, of those that are
    `near`. What has been orphaned in a session of its own is nobody's descendant any more."""
    found: dict[int, int] = {}
    try:
        session = os.getsid(pid)
    except ProcessLookupError:
        session = -1
    for _ in range(_ROUNDS):
        fresh = _family(pid, session, near(), found)
        if not fresh:
            break
        for each, started in fresh.items():
            processes.send(each, started, signal.SIGSTOP)
        found |= fresh
    for each, started in found.items():
        processes.send(each, started, signal.SIGKILL)


def _family(pid: int, session: int, near: Iterable[int], known: dict[int, int]) -> dict[int, int]:
    """Those that belong to it and are not known yet, by pid: when they have started."""
    seen = {each: _facts(each) for each in near if each not in known}
    family, more = {*known, pid}, True
    fresh: dict[int, int] = {}
    while more:
        more = False
        for each, (parent, sid, started) in seen.items():
            belongs = parent in family or sid == session or each == pid
            if started and belongs and each not in fresh:
                fresh[each] = started
                family.add(each)
                more = True
    return fresh


def _facts(pid: int) -> tuple[int, int, int]:
    """Parent, session and start time of a process (proc(5), stat); zeros for one that has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0, 0, 0
    fields = text[text.rindex(")") + 2 :].split()
    return (0, 0, 0) if fields[0] in "ZX" else (int(fields[1]), int(fields[3]), int(fields[19]))
