"""A process's streams over a WebSocket, both ways; `sessions` says in which messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter

from sublet.api.native import strict
from sublet.domain.errors import SubletError
from sublet.domain.signals import signal_number
from sublet.drivers.container.streams import STDOUT, Streams

Signal = Callable[[int], Awaitable[None]]
"""Sends the process a signal."""

_LOOK = 1.0
"""Seconds between looks at whether a client is there whose input is not read."""


class CloseStdin(BaseModel):
    type: Literal["close-stdin"]


class Resize(BaseModel):
    type: Literal["resize"]
    rows: int = Field(ge=0, le=65535)
    columns: int = Field(ge=0, le=65535)


class SendSignal(BaseModel):
    type: Literal["signal"]
    signal: str


class Taken(BaseModel):
    type: Literal["taken"]


Control = CloseStdin | Resize | SendSignal | Taken
_CONTROL: TypeAdapter[Control] = TypeAdapter(Annotated[Control, Field(discriminator="type")])


async def relay(
    socket: WebSocket,
    streams: Streams,
    signal: Signal,
    heard: Callable[[], object] = lambda: None,
) -> None:
    """Carry both directions until the process has closed its output. `heard` is called with each
    message of the client."""

    async def emit(stream: int, data: bytes) -> None:
        await socket.send_bytes(bytes([stream]) + data)

    incoming = asyncio.ensure_future(_incoming(socket, streams, signal, heard))
    outgoing = asyncio.ensure_future(streams.pump(emit))
    try:
        await asyncio.wait({incoming, outgoing}, return_when=asyncio.FIRST_COMPLETED)
        if incoming.done():
            incoming.result()  # raises WebSocketDisconnect: nobody is listening any more
        await outgoing
    finally:
        for task in (incoming, outgoing):
            task.cancel()
        await asyncio.gather(incoming, outgoing, return_exceptions=True)


async def _incoming(
    socket: WebSocket, streams: Streams, signal: Signal, heard: Callable[[], object]
) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        heard()
        if message.get("bytes") is not None:
            await _feed(socket, streams, message["bytes"])
        else:
            await _control(strict.parse(_CONTROL, message["text"]), streams, signal)


async def _feed(socket: WebSocket, streams: Streams, data: bytes) -> None:
    """Hand on input. While the process does not read it, nothing is received, so that only
    sending tells whether the client is still there: it is sent an output of no bytes."""
    feeding = asyncio.ensure_future(streams.send(data))
    try:
        while not (await asyncio.wait([feeding], timeout=_LOOK))[0]:
            await socket.send_bytes(bytes([STDOUT]))
        feeding.result()
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _control(message: Control, streams: Streams, signal: Signal) -> None:
    if isinstance(message, CloseStdin):
        await streams.close_input()
    elif isinstance(message, Resize):
        await streams.resize(message.rows, message.columns)
    elif isinstance(message, SendSignal):
        number = signal_number(message.signal)
        with contextlib.suppress(SubletError):  # it may have ended just now
            await signal(number)
