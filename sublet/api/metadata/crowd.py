"""Who is served at once: so many of each caller, so many of all, and none faster than its pace."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from sublet.domain.metadata import PACE
from sublet.drivers.network import Caller

EACH, ALL = 8, 512
"""The most connections of one caller, and of all."""

_REMEMBERED = 8192


class Crowd:
    """The connections that are open, each with the task that serves it."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], Caller] = {}
        self._counts: Counter[Caller] = Counter()
        self._due: dict[Caller, float] = {}

    def admits(self, caller: Caller) -> bool:
        """Whether there is room for a further connection. Where there is none at all, the caller
        with the most loses its oldest, to one that has none."""
        if self._counts[caller] >= EACH:
            return False
        if len(self._tasks) < ALL:
            return True
        if self._counts[caller]:
            return False
        [(most, _)] = self._counts.most_common(1)
        next(task for task, owner in self._tasks.items() if owner == most).cancel()
        return True

    def enter(self, caller: Caller, task: asyncio.Task[Any]) -> None:
        """The task serves a connection of the caller's, until it ends."""
        self._tasks[task] = caller
        self._counts[caller] += 1
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[Any]) -> None:
        caller = self._tasks.pop(task)
        self._counts[caller] -= 1
        if not self._counts[caller]:
            del self._counts[caller]

    def delay(self, caller: Caller, now: float) -> float:
        """For how many seconds the caller's next request has to wait; `now` of a clock that only
        goes forward."""
        if len(self._due) >= _REMEMBERED:
            self._due = {who: due for who, due in self._due.items() if due > now}
        self._due[caller], wait = PACE.next(self._due.get(caller, 0.0), now)
        return wait
