"""Requests, streams and sessions over one connection each."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from sublet.domain.errors import from_dict
from sublet.sdk import _marks
from sublet.sdk._async.connection import AsyncConnection
from sublet.sdk._http import Lines, Response, chunk, error_of, head, lost, request
from sublet.sdk._websocket import Dialogue, Reply

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


async def stream(
    method: str, target: str, body: Any = None, *, path: str = ""
) -> AsyncGenerator[bytes, None]:
    """The response's body, piece by piece. Raises the error that the daemon answers."""
    connection = await AsyncConnection.open(path)
    try:
        response = Response()
        await connection.send(request(method, target, body))
        failure = b""
        while not response.done:
            for piece in response.feed(await connection.receive()):
                if response.failed:
                    failure += piece
                else:
                    yield piece
        if response.failed:
            raise error_of(response.status, failure)
    finally:
        await connection.close()


async def upload(target: str, pieces: AsyncIterator[bytes], *, path: str = "") -> bytes:
    """PUT a body that comes in pieces; the response's. An answer that comes before the end of
    the body, which then is an error, ends it."""
    connection = await AsyncConnection.open(path)
    try:
        response = Response()
        await connection.send(head("PUT", target, Connection="close", Transfer_Encoding="chunked"))
        async for piece in pieces:
            if connection.pending():
                break
            if piece:
                await connection.send(chunk(piece))
        else:
            await connection.send(chunk(b""))
        found = b""
        while not response.done:
            found += b"".join(response.feed(await connection.receive()))
        if response.failed:
            raise error_of(response.status, found)
        return found
    finally:
        await connection.close()


async def lines(
    method: str, target: str, body: Any = None, *, path: str = ""
) -> AsyncGenerator[dict[str, Any], None]:
    """The response's JSON lines. Who closes it closes the connection."""
    cutter, pieces = Lines(), stream(method, target, body, path=path)
    try:
        async for piece in pieces:
            for line in cutter.feed(piece):
                yield line
    finally:
        await pieces.aclose()


class AsyncSession:
    """The streams of a process, in the foreground of a `run` or of an `exec`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._dialogue = Dialogue()
        self._messages: deque[bytes | dict[str, Any]] = deque()

    @classmethod
    async def open(cls, target: str, request: Any, *, path: str = "") -> AsyncSession:
        """Begin: `request` is sent as the first message."""
        session = cls(await AsyncConnection.open(path))
        _marks.mark("connect")
        await session.connection.send(session._dialogue.open(target, request))
        return session

    async def receive(self) -> bytes | dict[str, Any]:
        """The next message: output (its first byte names the stream) or a JSON object.

        Raises the error that ended the session.
        """
        while not self._messages:
            await self.take()
        message = self._messages.popleft()
        _marks.mark("output" if isinstance(message, bytes) else f"until {message['type']}")
        if isinstance(message, dict) and message["type"] == "error":
            raise from_dict(message["error"])
        return message

    async def take(self) -> None:
        """Take in what the daemon has sent, or wait for something: it need not be a message, nor a
        whole one. For who has other things to wait for; `ready` tells what came of it."""
        if self._dialogue.closed:
            raise lost()
        for message in self._dialogue.feed(await self.connection.receive()):
            if isinstance(message, Reply):
                await self.connection.send(message)
            else:
                self._messages.append(message)

    def ready(self) -> bool:
        """Whether `receive` has a message without waiting for the daemon."""
        return bool(self._messages)

    async def send_input(self, data: bytes) -> None:
        """Write to the process's standard input."""
        await self.connection.send(self._dialogue.binary(data))

    async def close_input(self) -> None:
        """Let the process read an end of file."""
        await self.connection.send(self._dialogue.text(type="close-stdin"))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the process's terminal its size in characters."""
        await self.connection.send(self._dialogue.text(type="resize", rows=rows, columns=columns))

    async def signal(self, name: str) -> None:
        """Send the process a signal, such as SIGINT."""
        await self.connection.send(self._dialogue.text(type="signal", signal=name))

    async def say(self, **message: Any) -> None:
        """Send a message of any other kind."""
        await self.connection.send(self._dialogue.text(**message))

    async def close(self) -> None:
        await self.connection.close()
