# Made from ../_async/sandbox_watch.py by scripts/unasync.py; edit that file.
"""What happens to the files of a sandbox.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from sublet.domain.errors import TimeoutExceeded
from sublet.sdk._sync.client import Client
from sublet.sdk._sync.deadline import deadline
from sublet.sdk.sandbox_results import FileChange, FileEvent, file_event

if TYPE_CHECKING:
    from typing import Any

START = 60.0
"""Seconds that the beginning of a watch may take."""


class Watch:
    """Iterate over it for a FileEvent each time that something happens. As a context manager it
    sees all that happens in the block; otherwise, what happens from the first step on.

    It ends with the sandbox, with what is watched, after `timeout` seconds, or when it is closed.
    """

    def __init__(
        self, client: Client, name: str, path: str, recursive: bool, timeout: float
    ) -> None:
        self._rows = client.watch_files(name, path, recursive=recursive)
        self._path, self._timeout, self._until = path, timeout, 0.0

    def __enter__(self) -> Watch:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> FileEvent:
        self._start()
        try:
            with deadline(max(0.0, self._until - time.monotonic()), "The watch"):
                row = _following(self._rows)
        except TimeoutExceeded:
            row = None
        if row is None:
            self.close()
            raise StopIteration
        return file_event(row)

    def _start(self) -> None:
        """Wait until it sees what happens."""
        if self._until:
            return
        with deadline(START, f"The watch of {self._path}"):
            row = _following(self._rows)
        assert row is None or file_event(row).type is FileChange.READY
        self._until = time.monotonic() + self._timeout

    def close(self) -> None:
        """End it."""
        self._rows.close()


def _following(rows: Generator[dict[str, Any], None, None]) -> dict[str, Any] | None:
    return next(rows, None)
