"""The WebSocket that a client holds open for as long as its instances are to last.

Its first message is the request: empty for a new lease, or the `lease` that was held before the
daemon started again. The daemon answers `lease` (id). A `release` of the client's ends it: when
its instances are gone, `exit` (code 0) or `error` follows, as of the other sessions.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter

from sublet.api.native import strict
from sublet.api.native.given import Given
from sublet.api.native.sessions import requested, say, session
from sublet.engine.verbs import Verbs


class Hold(BaseModel):
    """`lease`: the id of one to take up again."""

    lease: str = Field(default="", pattern="^[0-9a-f]{0,64}$")


class Release(BaseModel):
    type: Literal["release"]


_HOLD, _RELEASE = TypeAdapter(Hold), TypeAdapter(Release)


routes = APIRouter(prefix="/v1")
"""`/v1/lease`."""


@routes.websocket("/lease")
async def lease(verbs: Given, socket: WebSocket) -> None:
    await session(socket, lambda: _hold(socket, verbs))


async def _hold(socket: WebSocket, verbs: Verbs) -> int:
    request = await requested(socket, _HOLD)
    with verbs.leases.hold(request.lease) as lease:
        await say(socket, type="lease", id=lease)
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        strict.parse(_RELEASE, message.get("text") or "")
        await verbs.leases.release(lease)
    return 0
