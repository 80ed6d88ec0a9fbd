"""WebSockets: the streams of a foreground `run`, of `attach` and of `exec`.

Text messages are JSON objects with a `type`. The client's first message is the
request. Then, from the client: binary messages are standard input; `close-stdin`,
`resize` (rows, columns) and `signal` (signal) control it; `taken` only says that it is
there. From the server: `waiting` (text: what a start waits for), `created` (instance),
binary messages whose first byte is the stream (1 output, 2 errors), and at last `exit`
(code) or `error` (error).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, TypeAdapter

from sublet.api.native import render, strict
from sublet.api.native.given import Given
from sublet.api.native.relay import relay
from sublet.api.native.streaming import unless_gone
from sublet.domain.errors import InvalidArgument, SubletError, unexpected
from sublet.domain.instance import Instance
from sublet.domain.spec import ExecSpec, InstanceSpec
from sublet.drivers import trace
from sublet.drivers.container.streams import Streams
from sublet.engine.inside import within
from sublet.engine.verbs import Verbs

log = logging.getLogger(__name__)
T = TypeVar("T")


class Attach(BaseModel):
    """`start`: start the instance first, if it is stopped."""

    start: bool = False


_ATTACH, _SPEC, _EXEC = TypeAdapter(Attach), TypeAdapter(InstanceSpec), TypeAdapter(ExecSpec)


routes = APIRouter(prefix="/v1")
"""`/v1/run`, and `exec` and `attach` of `/v1/instances/{name}`."""


@routes.websocket("/run")
async def run(verbs: Given, socket: WebSocket, wait: bool = True, confirm: bool = False) -> None:
    """`confirm`: a client that goes before it has answered to `created` has not learnt that there
    is an instance, and it is taken back."""
    await session(socket, lambda: _run(socket, verbs, wait, confirm))


@routes.websocket("/instances/{name}/attach")
async def attach(verbs: Given, socket: WebSocket, name: str, wait: bool = True) -> None:
    await session(socket, lambda: _attach(socket, verbs, name, wait))


@routes.websocket("/instances/{name}/exec")
async def execute(verbs: Given, socket: WebSocket, name: str) -> None:
    await session(socket, lambda: _execute(socket, verbs, name))


async def session(socket: WebSocket, work: Callable[[], Awaitable[int]]) -> None:
    """Run a session to its end, and tell how it ended."""
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        try:
            message = {"type": "exit", "code": await work()}
        except SubletError as error:
            message = {"type": "error", "error": error.to_dict()}
        except (WebSocketDisconnect, RuntimeError):
            raise
        except Exception as error:
            log.exception("a session failed")
            message = {"type": "error", "error": unexpected(error).to_dict()}
        await socket.send_text(json.dumps(message))
        await socket.close()


async def _run(socket: WebSocket, verbs: Verbs, wait: bool, confirm: bool) -> int:
    spec = await requested(socket, _SPEC)
    async with _reporting(socket) as report:
        work = verbs.instances.run(spec, attach=True, wait=wait, report=report)
        instance, streams = await unless_gone(socket.receive, work)
    assert streams is not None
    heard = asyncio.Event()
    try:
        return await _attached(socket, verbs, instance, streams, heard.set)
    except (WebSocketDisconnect, RuntimeError):
        if confirm and not heard.is_set():
            with contextlib.suppress(SubletError):
                await verbs.instances.remove(instance.id, force=True, volumes=True)
        raise


async def _attach(socket: WebSocket, verbs: Verbs, name: str, wait: bool) -> int:
    """Attach to a running instance, or start a stopped one with its streams."""
    request = await requested(socket, _ATTACH)
    instance, streams = verbs.instances.get(name), None
    if request.start:
        async with _reporting(socket) as report:
            start = verbs.instances.start(name, attach=True, wait=wait, report=report)
            instance, streams = await unless_gone(socket.receive, start)
    return await _attached(socket, verbs, instance, streams or verbs.instances.attach(instance.id))


async def _attached(
    socket: WebSocket,
    verbs: Verbs,
    instance: Instance,
    streams: Streams,
    heard: Callable[[], object] = lambda: None,
) -> int:
    """Relay the first process's streams until it ends; its exit code."""
    try:
        ended = asyncio.ensure_future(verbs.instances.wait(instance.id))
        told = {**render.instance(instance), "warnings": verbs.instances.warnings(instance)}
        await say(socket, type="created", instance=told)

        async def signal(number: int) -> None:
            await verbs.instances.kill(instance.id, number)

        with verbs.idleness.session(instance.id, "attach"):
            await relay(socket, streams, signal, heard)
        return await ended
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        streams.close()


async def _execute(socket: WebSocket, verbs: Verbs, name: str) -> int:
    spec = await requested(socket, _EXEC)
    with trace.request("exec", name):
        with trace.step("start"):
            execution = await verbs.instances.execute(name, spec)
        try:
            await say(socket, type="created")

            async def signal(number: int) -> None:
                execution.signal(number)

            instance = verbs.instances.get(name)
            with trace.step("process"), verbs.idleness.session(instance.id, "exec"):
                async with within(execution, spec.timeout):
                    await relay(socket, execution.streams, signal)
                    return await execution.wait()
        finally:
            with trace.step("clean-up"):
                execution.close()


@contextlib.asynccontextmanager
async def _reporting(socket: WebSocket) -> AsyncIterator[Callable[[str], None]]:
    """What takes lines to the client while a start waits."""
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def send() -> None:
        while True:
            await say(socket, type="waiting", text=await lines.get())

    sending = asyncio.ensure_future(send())
    try:
        yield lines.put_nowait
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def requested(socket: WebSocket, adapter: TypeAdapter[T]) -> T:
    try:
        return strict.parse(adapter, await socket.receive_text())
    except KeyError:
        raise InvalidArgument("The first message must be the request, as text.") from None


async def say(socket: WebSocket, **message: Any) -> None:
    await socket.send_text(json.dumps(message))
