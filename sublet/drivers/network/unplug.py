"""Removing cables, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from sublet.drivers.network import cables
from sublet.drivers.network.threads import finish


@dataclass(slots=True)
class _Batch:
    names: set[str] = field(default_factory=set)
    done: bool = False


class Unplugger:
    """Deletes cables. The kernel takes 15 ms, for one as for ten: those that are to go while
    a deletion is under way go together in the next."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._next = _Batch()
        self._lock = asyncio.Lock()

    async def remove(self, names: Iterable[str]) -> None:
        """The cables are gone when this returns."""
        batch = self._next
        batch.names.update(names)
        async with self._lock:
            if batch.done:
                return
            if self._next is batch:
                self._next = _Batch()
            await finish(cables.delete, self._group, sorted(batch.names))
            batch.done = True
