"""The event bus: kept in the database, and told to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from sublet.domain.event import Event, matches
from sublet.domain.filters import Given
from sublet.drivers.store.instances import InstanceStore

BACKLOG = 1000
"""Events that a listener in the daemon may lag behind before it loses the oldest."""

PAGE = 500
"""Events that are read from the database at once."""

KEPT_FOR = 30 * 86400.0
"""Seconds that events are kept."""


class Events:
    """Publishes events; each listener has a queue of its own."""

    def __init__(self, store: InstanceStore) -> None:
        self._store = store
        store.forget_events(time.time() - KEPT_FOR)
        self._queues: set[asyncio.Queue[Event]] = set()

    def publish(self, kind: str, instance: str = "", **detail: str) -> None:
        event = Event(time.time(), kind, instance, detail)
        event = replace(event, id=self._store.add_event(event))
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Event]]:
        """A queue that gets every event from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    async def read(
        self, wanted: Given, *, after: int, since: float, until: float | None, follow: bool
    ) -> AsyncIterator[Event]:
        """Events of the times from `since` to `until` and with ids above `after`, the oldest
        first; with `follow` also those to come.

        They are read from the database, so that a reader who is slow, or comes back with the
        last id that he saw, loses none.
        """
        with self.listen() as queue:
            while True:
                page = self._store.events(after=after, since=since, limit=PAGE)
                for event in page:
                    after = event.id
                    if until is not None and event.time > until:
                        return
                    if matches(event, wanted):
                        yield event
                if len(page) == PAGE:
                    continue
                if not follow or not await self._more(queue, until):
                    return

    @staticmethod
    async def _more(queue: asyncio.Queue[Event], until: float | None) -> bool:
        """Wait for an event that was not there when it was last looked; False if the time ends."""
        left = None if until is None else max(0.0, until - time.time())
        try:
            async with asyncio.timeout(left):
                await queue.get()
        except TimeoutError:
            return False
        with suppress(asyncio.QueueEmpty):
            while True:
                queue.get_nowait()
        return True
