"""Messages to a browser over the standard streams of its instance: no port is opened for them.

The browser is somebody else's program that shows somebody else's page: what it sends is bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from sublet.domain.errors import BrowserFailed
from sublet.sdk._async.wire import AsyncSession

LIMIT = 256 << 20
"""Bytes of one message: a picture of a long page, in base64."""

_PIECE = 1 << 16
_TAIL = 4096


class Streams:
    """The standard streams of the process in an instance's foreground."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._said = b""

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            await self._session.send_input(data[start : start + _PIECE])

    async def receive(self) -> bytes:
        """Some bytes of its standard output. Raises BrowserFailed at the end."""
        while True:
            message = await self._session.receive()
            if not isinstance(message, bytes):
                if message["type"] == "exit":
                    raise self.ended(f"The browser ended (exit code {message['code']}).")
            elif message[0] == 2:
                self._said = (self._said + message[1:])[-_TAIL:]
            elif len(message) > 1:
                return message[1:]

    def ended(self, what: str) -> BrowserFailed:
        """The error for a browser that has gone, with what it said last."""
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines()]
        said = [line for line in lines if line][-3:]
        return BrowserFailed(f"{what} It said: {' / '.join(said)}" if said else what)


class Messages(Protocol):
    """Texts, one at a time."""

    async def send(self, text: str) -> None: ...

    async def receive(self) -> bytes: ...


class ZeroEnded:
    """Each message ends with a zero byte, as with Chromium's `--remote-debugging-pipe`."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole: deque[bytes] = deque()

    async def send(self, text: str) -> None:
        await self._streams.send(text.encode() + b"\0")

    async def receive(self) -> bytes:
        """The next message. Raises BrowserFailed."""
        while not self._whole:
            *ended, rest = (await self._streams.receive()).split(b"\0")
            for piece in ended:
                self._whole.append(b"".join([*self._pieces, piece]))
                self._pieces, self._size = [], 0
            self._pieces.append(rest)
            self._size += len(rest)
            _check(self._size)
        return self._whole.popleft()


class WebSocket:
    """A WebSocket, client's side, over the streams: something in the instance connects them."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._parts: list[bytes] = []
        self._size = 0
        self._whole: deque[bytes] = deque()
        self._open = False

    async def open(self, host: str, path: str) -> None:
        """Shake hands. Raises BrowserFailed."""
        await self._streams.send(self._protocol.send(Request(host=host, target=path)))
        while not self._open:
            await self._take()

    async def send(self, text: str) -> None:
        await self._streams.send(self._protocol.send(TextMessage(text)))

    async def receive(self) -> bytes:
        """The next message. Raises BrowserFailed."""
        while not self._whole:
            await self._take()
        return self._whole.popleft()

    async def _take(self) -> None:
        try:
            self._protocol.receive_data(await self._streams.receive())
            for event in self._protocol.events():
                await self._heed(event)
        except ProtocolError as error:
            raise self._streams.ended(f"The browser speaks no WebSocket: {error}.") from error

    async def _heed(self, event: object) -> None:
        if isinstance(event, AcceptConnection):
            self._open = True
        elif isinstance(event, TextMessage | BytesMessage):
            data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
            self._parts.append(data)
            self._size += len(data)
            _check(self._size)
            if event.message_finished:
                self._whole.append(b"".join(self._parts))
                self._parts, self._size = [], 0
        elif isinstance(event, Ping):
            await self._streams.send(self._protocol.send(event.response()))
        elif isinstance(event, RejectConnection | CloseConnection):
            raise self._streams.ended("The browser hung up.")


def _check(size: int) -> None:
    if size > LIMIT:
        raise BrowserFailed(
            f"The browser sent a message of more than {LIMIT >> 20} MiB.",
            hint="Leave out --full-page, or give a smaller --size.",
        )
