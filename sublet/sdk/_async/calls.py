"""Requests of the native API, whatever they are about.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sublet.domain.errors import from_dict
from sublet.sdk._async import wire
from sublet.sdk._http import lost, query_of

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

Progress = Callable[[str], None]
"""Is told what a long action does, a line each."""


def silent(line: str) -> None:
    """Progress that nobody wants to see."""


class AsyncCalls:
    """Calls to one daemon."""

    def __init__(self, socket: str = "") -> None:
        self._path = socket

    @property
    def socket(self) -> str:
        """The path that was given, empty for this environment's daemon."""
        return self._path

    async def call(self, method: str, target: str, body: Any = None, **query: Any) -> Any:
        """One request of the native API: the JSON answer, None where it has none."""
        target += query_of(query)
        pieces = [p async for p in wire.stream(method, target, body, path=self._path)]
        text = b"".join(pieces)
        return json.loads(text) if text else None

    async def _operate(
        self, target: str, body: Any, progress: Progress, method: str = "POST"
    ) -> dict[str, Any]:
        """A long action: its lines go to `progress`; its result."""
        async for message in wire.lines(method, target, body, path=self._path):
            if "line" in message:
                progress(message["line"])
            elif "error" in message:
                raise from_dict(message["error"])
            elif "result" in message:
                return dict(message["result"])
        raise lost()
