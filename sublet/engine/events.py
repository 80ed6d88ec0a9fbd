"""The event bus: kept in the database, and handed to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sublet.domain.event import Event
from sublet.drivers.store.instances import InstanceStore

BACKLOG = 1000
"""Events that a listener may lag behind before it loses the oldest."""


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
        self._store.add_event(event)
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

    def since(self, start: float) -> list[Event]:
        """Events from `start` (seconds since the epoch) on."""
        return self._store.events(start)
