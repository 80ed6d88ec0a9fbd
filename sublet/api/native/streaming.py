"""Operations as they cross the API: one JSON object a line, the last with the outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from sublet.domain.errors import Cancelled
from sublet.engine.operations import Operation, Operations, Work

T = TypeVar("T")
_LOOK = 0.5
"""Seconds between looks at whether the client is still there."""


def respond(request: Request, operations: Operations, kind: str, work: Work) -> StreamingResponse:
    """Start an operation and stream it: `operation`, then `line`s, then `result` or `error`.

    A client that goes away cancels it.
    """
    operation = operations.start(kind, work)
    return StreamingResponse(
        _lines(request, operations, operation), media_type="application/x-ndjson"
    )


async def _lines(
    request: Request, operations: Operations, operation: Operation
) -> AsyncIterator[bytes]:
    follow = operation.follow()
    pending = asyncio.ensure_future(anext(follow, None))
    try:
        yield _line({"operation": operation.id})
        while True:
            done, _ = await asyncio.wait([pending], timeout=_LOOK)
            if not done:
                if await request.is_disconnected():
                    return
                continue
            text = pending.result()
            if text is None:
                break
            yield _line({"line": text})
            pending = asyncio.ensure_future(anext(follow, None))
        if operation.error:
            yield _line({"error": operation.error.to_dict()})
        else:
            yield _line({"result": operation.result})
    finally:
        pending.cancel()
        await asyncio.shield(operations.cancel(operation.id))


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`; Cancelled if the client goes away before.

    `receive` is ASGI's: all that a client says meanwhile means that it has gone.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    except asyncio.CancelledError:
        raise Cancelled("The start was cancelled; what it had made is gone.") from None
    finally:
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)


async def gone(receive: Callable[[], Awaitable[Any]]) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] == "http.request":  # the end of its body
        pass


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
