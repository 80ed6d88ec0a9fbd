"""What happens to the files of a sandbox.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from sublet.domain.errors import TimeoutExceeded
from sublet.sdk._async.client import AsyncClient
from sublet.sdk._async.deadline import deadline
from sublet.sdk.sandbox_results import FileChange, FileEvent, file_event

if TYPE_CHECKING:
    from typing import Any

START = 60.0
"""Seconds that the beginning of a watch may take."""


class AsyncWatch:
    """Iterate over it for a FileEvent each time that something happens. As a context manager it
    sees all that happens in the block; otherwise, what happens from the first step on.

    It ends with the sandbox, with what is watched, after `timeout` seconds, or when it is closed.
    """

    def __init__(
        self, client: AsyncClient, name: str, path: str, recursive: bool, timeout: float
    ) -> None:
        self._rows = client.watch_files(name, path, recursive=recursive)
        self._path, self._timeout, self._until = path, timeout, 0.0

    async def __aenter__(self) -> AsyncWatch:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileEvent:
        await self._start()
        try:
            async with deadline(max(0.0, self._until - time.monotonic()), "The watch"):
                row = await _following(self._rows)
        except TimeoutExceeded:
            row = None
        if row is None:
            await self.close()
            raise StopAsyncIteration
        return file_event(row)

    async def _start(self) -> None:
        """Wait until it sees what happens."""
        if self._until:
            return
        async with deadline(START, f"The watch of {self._path}"):
            row = await _following(self._rows)
        assert row is None or file_event(row).type is FileChange.READY
        self._until = time.monotonic() + self._timeout

    async def close(self) -> None:
        """End it."""
        await self._rows.aclose()


async def _following(rows: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
    return await anext(rows, None)
