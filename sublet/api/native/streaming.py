"""Operations as they cross the API: one JSON object a line, the last with the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from sublet.engine.operations import Operation, Operations, Report, Work

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
    try:
        yield _line({"operation": operation.id})
        follow = operation.follow()
        pending = asyncio.ensure_future(anext(follow, None))
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
        with contextlib.suppress(UnboundLocalError):
            pending.cancel()
        await asyncio.shield(operations.cancel(operation.id))


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


__all__ = ["Report", "respond"]
