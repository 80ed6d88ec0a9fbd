"""What instances wrote: all of it, the last of it, or that of some time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from sublet.domain.instance import LIVE, Instance
from sublet.drivers.container import logs
from sublet.engine.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked for: entries from `since` to `until` (seconds since the epoch; None: without
    end), the last `tail` (None: all) of those that are there, with `follow` those to come."""

    follow: bool = False
    since: float = 0.0
    until: float | None = None
    tail: int | None = None


async def read(
    lifecycle: Lifecycle, instance: Instance, window: Window
) -> AsyncIterator[logs.Entry]:
    """The entries that the window shows, the oldest first."""
    parts, all_read, asked = lifecycle.parts, asyncio.Event(), 0

    def following() -> bool:
        nonlocal asked
        asked += 1
        if asked > 1:  # it is asked before each reading
            all_read.set()
        current = parts.store.get(instance.id) if window.follow else None
        over = window.until is not None and time.time() > window.until
        return current is not None and current.state in LIVE and not over

    entries = logs.read(parts.containers.places(instance.id).log, following)
    if window.tail is not None:
        entries = last(entries, all_read, window.tail)
    async for entry in entries:
        when = written(entry)
        if window.until is not None and when > window.until:
            return
        if when >= window.since:
            yield entry


def written(entry: logs.Entry) -> float:
    """When, in seconds since the epoch; 0 where the entry does not say."""
    try:
        return datetime.fromisoformat(entry.time).timestamp()
    except ValueError:
        return 0.0


async def last(
    entries: AsyncIterator[logs.Entry], all_read: asyncio.Event, count: int
) -> AsyncIterator[logs.Entry]:
    """The last `count` of what comes before `all_read` is set, and all that comes later."""
    kept: deque[logs.Entry] = deque(maxlen=count)
    over = asyncio.ensure_future(all_read.wait())
    pending = asyncio.ensure_future(anext(entries, None))
    try:
        while True:
            await asyncio.wait({pending, over}, return_when=asyncio.FIRST_COMPLETED)
            if over.done() or pending.result() is None:
                break
            kept.extend(filter(None, [pending.result()]))
            pending = asyncio.ensure_future(anext(entries, None))
        for entry in kept:
            yield entry
        while (following := await pending) is not None:
            yield following
            pending = asyncio.ensure_future(anext(entries, None))
    finally:
        for task in (over, pending):
            task.cancel()
        await asyncio.gather(over, pending, return_exceptions=True)
