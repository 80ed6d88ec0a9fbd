"""Routes on what counts as use of an instance, beyond what is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from sublet.api.native.given import Given
from sublet.api.native.streaming import gone
from sublet.api.native.watching import ndjson

Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False)]


routes = APIRouter(prefix="/v1/instances", tags=["instances"])
"""`keepalive` and `attendance` of `/v1/instances/{name}`."""


@routes.post("/{name}/keepalive", status_code=204)
async def keep_instance(verbs: Given, name: str, seconds: Seconds = 0.0) -> None:
    verbs.idleness.keep(name, seconds)


@routes.get("/{name}/attendance")
async def attend_instance(verbs: Given, name: str, request: Request) -> StreamingResponse:
    """Counts as an SSH session until the client closes the connection; one line first."""
    instance = verbs.instances.get(name)

    async def lines() -> AsyncIterator[dict[str, Any]]:
        with verbs.idleness.session(instance.id, "ssh"):
            yield {"instance": instance.id}
            await gone(request.receive)

    return ndjson(lines())
