"""Removing cables, many at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sublet.drivers.network import cables
from sublet.drivers.network.threads import finish

PATIENCE, _POLL = 0.02, 0.0005
"""Seconds for which a namespace may take to end, and between looks."""


def present(name: str) -> bool:
    """Whether the host has a link of this name."""
    return os.path.exists(f"/sys/class/net/{name}")


@dataclass(slots=True)
class _Batch:
    names: set[str] = field(default_factory=set)
    done: bool = False


class Unplugger:
    """Deletes cables. A cable goes with the network namespace at its other end, which the kernel
    takes down by itself, in a millisecond. To be told to delete one it takes 15 ms, for one as
    for ten: those that are to go while a deletion is under way go together in the next."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._next = _Batch()
        self._lock = asyncio.Lock()

    async def gone(self, names: Iterable[str]) -> None:
        """The cables are gone when this returns, whose namespaces are about to go."""
        until = time.monotonic() + PATIENCE
        remaining = [name for name in names if present(name)]
        while remaining and time.monotonic() < until:
            await asyncio.sleep(_POLL)
            remaining = [name for name in remaining if present(name)]
        if remaining:
            await self.remove(remaining)

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
