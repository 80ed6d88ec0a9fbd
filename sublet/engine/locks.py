"""One lock per instance, holding the name of the action that has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sublet.domain.errors import Busy

DEADLINE = 120.0


class Locks:
    """Locks by instance id; one that nobody holds or waits for costs nothing."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._actions: dict[str, str] = {}
        self._users: dict[str, int] = {}

    def action(self, key: str) -> str:
        """What is being done under this lock, empty for nothing."""
        return self._actions.get(key, "")

    @asynccontextmanager
    async def hold(self, key: str, action: str) -> AsyncIterator[None]:
        """The lock, waited for; Busy when another action keeps it for two minutes."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            try:
                async with asyncio.timeout(DEADLINE):
                    await lock.acquire()
            except TimeoutError:
                raise Busy(f"{key} is busy: {self.action(key)} is still going on.") from None
            self._actions[key] = action
            try:
                yield
            finally:
                self._actions.pop(key, None)
                lock.release()
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
