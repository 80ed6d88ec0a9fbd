"""WebSockets: the streams of a foreground `run`, of `attach` and of `exec`.

Text messages are JSON objects with a `type`. The client's first message is the
request. Then, from the client: binary messages are standard input; `close-stdin`,
`resize` (rows, columns) and `signal` (signal) control it. From the server: `created`
(instance), binary messages whose first byte is the stream (1 output, 2 errors), and at
last `exit` (code) or `error` (error).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter

from sublet.api.native import render, strict
from sublet.api.native.streaming import unless_gone
from sublet.domain.errors import InvalidArgument, SubletError, unexpected
from sublet.domain.instance import Instance
from sublet.domain.signals import signal_number
from sublet.domain.spec import ExecSpec, InstanceSpec
from sublet.drivers import trace
from sublet.drivers.container.streams import Emit, Streams
from sublet.engine.verbs import Verbs

log = logging.getLogger(__name__)
T = TypeVar("T")


class CloseStdin(BaseModel):
    type: Literal["close-stdin"]


class Resize(BaseModel):
    type: Literal["resize"]
    rows: int = Field(ge=0, le=65535)
    columns: int = Field(ge=0, le=65535)


class SendSignal(BaseModel):
    type: Literal["signal"]
    signal: str


class Attach(BaseModel):
    """`start`: start the instance first, if it is stopped."""

    start: bool = False


Control = CloseStdin | Resize | SendSignal
_CONTROL: TypeAdapter[Control] = TypeAdapter(Annotated[Control, Field(discriminator="type")])
_ATTACH, _SPEC, _EXEC = TypeAdapter(Attach), TypeAdapter(InstanceSpec), TypeAdapter(ExecSpec)
Signal = Callable[[int], Awaitable[None]]
Pump = Callable[[Emit], Coroutine[Any, Any, None]]


def router(verbs: Verbs) -> APIRouter:
    """`/v1/run`, and `exec` and `attach` of `/v1/instances/{name}`."""
    routes = APIRouter(prefix="/v1")

    @routes.websocket("/run")
    async def run(socket: WebSocket) -> None:
        await _session(socket, lambda: _run(socket, verbs))

    @routes.websocket("/instances/{name}/attach")
    async def attach(socket: WebSocket, name: str) -> None:
        await _session(socket, lambda: _attach(socket, verbs, name))

    @routes.websocket("/instances/{name}/exec")
    async def execute(socket: WebSocket, name: str) -> None:
        await _session(socket, lambda: _execute(socket, verbs, name))

    return routes


async def _session(socket: WebSocket, work: Callable[[], Awaitable[int]]) -> None:
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


async def _run(socket: WebSocket, verbs: Verbs) -> int:
    spec = await _request(socket, _SPEC)
    instance, streams = await unless_gone(socket.receive, verbs.instances.run(spec, attach=True))
    assert streams is not None
    return await _attached(socket, verbs, instance, streams)


async def _attach(socket: WebSocket, verbs: Verbs, name: str) -> int:
    """Attach to a running instance, or start a stopped one with its streams."""
    request = await _request(socket, _ATTACH)
    instance, streams = verbs.instances.get(name), None
    if request.start:
        start = verbs.instances.start(name, attach=True)
        instance, streams = await unless_gone(socket.receive, start)
    return await _attached(socket, verbs, instance, streams or verbs.instances.attach(instance.id))


async def _attached(socket: WebSocket, verbs: Verbs, instance: Instance, streams: Streams) -> int:
    """Relay the first process's streams until it ends; its exit code."""
    try:
        ended = asyncio.ensure_future(verbs.instances.wait(instance.id))
        told = {**render.instance(instance), "warnings": verbs.instances.warnings(instance)}
        await _say(socket, type="created", instance=told)

        async def signal(number: int) -> None:
            await verbs.instances.kill(instance.id, number)

        await _relay(socket, streams, streams.pump, signal)
        return await ended
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        streams.close()


async def _execute(socket: WebSocket, verbs: Verbs, name: str) -> int:
    spec = await _request(socket, _EXEC)
    with trace.request("exec", name):
        with trace.step("start"):
            execution = await verbs.instances.execute(name, spec)
        try:
            await _say(socket, type="created")

            async def signal(number: int) -> None:
                execution.signal(number)

            with trace.step("process"):
                await _relay(socket, execution.streams, execution.pump, signal)
                return await execution.wait()
        finally:
            with trace.step("clean-up"):
                await execution.close()


async def _relay(socket: WebSocket, streams: Streams, pump: Pump, signal: Signal) -> None:
    """Carry both directions until the process has closed its output."""

    async def emit(stream: int, data: bytes) -> None:
        await socket.send_bytes(bytes([stream]) + data)

    incoming = asyncio.ensure_future(_incoming(socket, streams, signal))
    outgoing = asyncio.ensure_future(pump(emit))
    try:
        await asyncio.wait({incoming, outgoing}, return_when=asyncio.FIRST_COMPLETED)
        if incoming.done():
            incoming.result()  # raises WebSocketDisconnect: nobody is listening any more
        await outgoing
    finally:
        for task in (incoming, outgoing):
            task.cancel()
        await asyncio.gather(incoming, outgoing, return_exceptions=True)


async def _incoming(socket: WebSocket, streams: Streams, signal: Signal) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        if message.get("bytes") is not None:
            await streams.send(message["bytes"])
        else:
            await _control(strict.parse(_CONTROL, message["text"]), streams, signal)


async def _control(message: Control, streams: Streams, signal: Signal) -> None:
    if isinstance(message, CloseStdin):
        streams.close_input()
    elif isinstance(message, Resize):
        streams.resize(message.rows, message.columns)
    else:
        number = signal_number(message.signal)
        with contextlib.suppress(SubletError):  # it may have ended just now
            await signal(number)


async def _request(socket: WebSocket, adapter: TypeAdapter[T]) -> T:
    try:
        return strict.parse(adapter, await socket.receive_text())
    except KeyError:
        raise InvalidArgument("The first message must be the request, as text.") from None


async def _say(socket: WebSocket, **message: Any) -> None:
    await socket.send_text(json.dumps(message))
