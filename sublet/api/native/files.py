"""Routes on the files of instances. Bodies are streams, whose errors come before the first byte
wherever they can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond
from sublet.api.native.strict import only_known
from sublet.domain.errors import Cancelled, SubletError
from sublet.domain.progress import Report
from sublet.drivers.access import Sender
from sublet.engine.commits import Wish
from sublet.engine.verbs import Verbs

Paths = Annotated[tuple[str, ...], Query()]
log = logging.getLogger(__name__)

_LEFT = 16 << 20
"""Bytes that are still read of a body that is refused."""


class Streamed(StreamingResponse):
    """What a program sends. An error after its beginning cuts the connection, which the client
    notices: the last chunk of the body is missing (RFC 9112, section 8)."""

    def __init__(
        self, stack: AsyncExitStack, first: bytes, rest: AsyncIterator[bytes], media: str
    ) -> None:
        self._stack = stack
        super().__init__(_joined(first, rest, stack), media_type=media)

    async def stream_response(self, send: Any) -> None:
        try:
            await super().stream_response(send)
        except SubletError as error:
            log.warning("a stream was cut off: %s", error.message)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(self._stack.aclose())


async def _joined(
    first: bytes, rest: AsyncIterator[bytes], stack: AsyncExitStack
) -> AsyncIterator[bytes]:
    """All of it; the end comes when what was needed for it is given back. The client may go on
    with the instance at once."""
    yield first
    async for piece in rest:
        yield piece
    await asyncio.shield(stack.aclose())


def using(verbs: Verbs, name: str, kind: str = "copy") -> AbstractContextManager[None]:
    """A use of the instance, which is not idle meanwhile."""
    return verbs.idleness.session(verbs.instances.get(name).id, kind)


async def sent(
    source: AbstractAsyncContextManager[Sender],
    session: AbstractContextManager[None],
    media: str = "application/x-tar",
) -> Streamed:
    """The response, once the first bytes are there. `session` lasts until the last."""
    async with AsyncExitStack() as stack:
        stack.enter_context(session)
        courier = await stack.enter_async_context(source)
        stream = courier.stream()
        first = await anext(stream, b"")
        return Streamed(stack.pop_all(), first, stream, media)
    raise AssertionError


@asynccontextmanager
async def heard(request: Request, what: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The request's body, for a block that may refuse it before its end. Some of what is left is
    read then: a connection that is closed with more to read loses the answer (unix(7)), which the
    client would take for the daemon's end."""
    stream = request.stream()
    try:
        try:
            yield stream
        except SubletError:
            left = _LEFT
            while left > 0 and (piece := await anext(stream, None)) is not None:
                left -= len(piece)
            raise
    except ClientDisconnect:
        raise Cancelled(f"The client went away before the end of its {what}.") from None


routes = APIRouter(prefix="/v1/instances", tags=["files"])
"""`/v1/instances/NAME/archive` and `/export`."""


@routes.get("/{name}/archive")
async def read_archive(
    verbs: Given, name: str, path: str, follow: bool = False
) -> StreamingResponse:
    return await sent(verbs.files.read(name, path, follow=follow), using(verbs, name))


@routes.put("/{name}/archive")
async def write_archive(
    verbs: Given, name: str, path: str, request: Request, archived: bool = False, keep: bool = False
) -> dict[str, Any]:
    async with heard(request, "archive") as stream:
        with using(verbs, name):
            done = await verbs.files.write(name, path, stream, archived=archived, keep=keep)
    return asdict(done)


@routes.get("/{name}/export")
async def export_instance(verbs: Given, name: str) -> StreamingResponse:
    return await sent(verbs.files.export(name), using(verbs, name))


@routes.post("/{name}/commit", dependencies=[Depends(only_known(Wish))])
async def commit_instance(
    verbs: Given, name: str, body: Wish, request: Request
) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(await verbs.commits.commit(name, body, report))

    return respond(request, verbs.operations, "commit", work)


@routes.get("/{name}/changes")
async def changed_files(verbs: Given, name: str, mount: str = "") -> StreamingResponse:
    return await sent(verbs.files.changes(name, mount), using(verbs, name), "application/x-ndjson")


@routes.get("/{name}/changes/archive")
async def changed_archive(
    verbs: Given, name: str, mount: str = "", path: Paths = ()
) -> StreamingResponse:
    return await sent(verbs.files.changed(name, mount, path), using(verbs, name))
