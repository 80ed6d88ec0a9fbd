"""Routes that show what happens: statistics, processes, logs, events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.domain import event as events
from sublet.domain.moments import moment
from sublet.domain.units import rfc3339
from sublet.engine import watching
from sublet.engine.reading import Window

Texts = Annotated[Sequence[str], Query()]


routes = APIRouter(prefix="/v1", tags=["instances"])
"""`/v1/stats`, `/v1/events`, and `top` and `logs` of `/v1/instances/{name}`."""


@routes.get("/stats")
async def statistics(
    verbs: Given, name: Texts = (), all: bool = False, stream: bool = True
) -> StreamingResponse:
    for each in name:
        verbs.instances.get(each)
    looks = watching.stats(verbs.instances, list(name), all=all, stream=stream)

    async def lines() -> AsyncIterator[dict[str, Any]]:
        async for rows in looks:
            found = [render.use(row) for row in rows]
            yield {"time": rfc3339(time.time()), "instances": found}

    return ndjson(lines())


@routes.get("/instances/{name}/top")
async def processes(verbs: Given, name: str) -> list[dict[str, Any]]:
    return [asdict(process) for process in await verbs.instances.processes(name)]


@routes.get("/instances/{name}/logs")
async def logs(
    verbs: Given,
    name: str,
    follow: bool = False,
    since: str = "",
    until: str = "",
    tail: Annotated[int | None, Query(ge=0)] = None,
) -> StreamingResponse:
    now = time.time()
    window = Window(
        follow=follow,
        since=moment(since, now) if since else 0.0,
        until=moment(until, now) if until else None,
        tail=tail,
    )
    entries = verbs.instances.logs(name, window)

    async def lines() -> AsyncIterator[dict[str, Any]]:
        async for entry in entries:
            text = entry.data.decode(errors="surrogateescape")
            yield {"time": entry.time, "stream": entry.stream, "data": text}

    return ndjson(lines())


@routes.get("/events")
async def happenings(
    verbs: Given,
    since: str = "",
    until: str = "",
    after: int = 0,
    filter: Texts = (),
    follow: bool = False,
) -> StreamingResponse:
    now = time.time()
    rows = verbs.events.read(
        events.parse(filter),
        after=after,
        since=moment(since, now) if since else 0.0,
        until=moment(until, now) if until else None,
        follow=follow,
    )

    async def lines() -> AsyncIterator[dict[str, Any]]:
        async for row in rows:
            yield render.event(row)

    return ndjson(lines())


def ndjson(rows: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """One JSON object a line, as they come."""

    async def encoded() -> AsyncIterator[bytes]:
        async for row in rows:
            yield json.dumps(row).encode() + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")
