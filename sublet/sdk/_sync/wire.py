# Made from ../_async/wire.py by scripts/unasync.py; edit that file.
"""Requests, streams and sessions over one connection each."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

from sublet.domain.errors import from_dict
from sublet.sdk import _marks
from sublet.sdk._sync.connection import Connection
from sublet.sdk._http import Lines, Response, chunk, error_of, head, lost, request
from sublet.sdk._websocket import Dialogue, Reply

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


def stream(
    method: str, target: str, body: Any = None, *, path: str = ""
) -> Generator[bytes, None, None]:
    """The response's body, piece by piece. Raises the error that the daemon answers."""
    connection = Connection.open(path)
    try:
        response = Response()
        connection.send(request(method, target, body))
        failure = b""
        while not response.done:
            for piece in response.feed(connection.receive()):
                if response.failed:
                    failure += piece
                else:
                    yield piece
        if response.failed:
            raise error_of(response.status, failure)
    finally:
        connection.close()


def upload(target: str, pieces: Iterator[bytes], *, path: str = "") -> bytes:
    """PUT a body that comes in pieces; the response's. An answer that comes before the end of
    the body, which then is an error, ends it."""
    connection = Connection.open(path)
    try:
        response = Response()
        connection.send(head("PUT", target, Connection="close", Transfer_Encoding="chunked"))
        for piece in pieces:
            if connection.pending():
                break
            if piece:
                connection.send(chunk(piece))
        else:
            connection.send(chunk(b""))
        found = b""
        while not response.done:
            found += b"".join(response.feed(connection.receive()))
        if response.failed:
            raise error_of(response.status, found)
        return found
    finally:
        connection.close()


def lines(
    method: str, target: str, body: Any = None, *, path: str = ""
) -> Generator[dict[str, Any], None, None]:
    """The response's JSON lines. Who closes it closes the connection."""
    cutter, pieces = Lines(), stream(method, target, body, path=path)
    try:
        for piece in pieces:
            for line in cutter.feed(piece):
                yield line
    finally:
        pieces.close()


class Session:
    """The streams of a process, in the foreground of a `run` or of an `exec`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._dialogue = Dialogue()
        self._messages: deque[bytes | dict[str, Any]] = deque()

    @classmethod
    def open(cls, target: str, request: Any, *, path: str = "") -> Session:
        """Begin: `request` is sent as the first message."""
        session = cls(Connection.open(path))
        _marks.mark("connect")
        session.connection.send(session._dialogue.open(target, request))
        return session

    def receive(self) -> bytes | dict[str, Any]:
        """The next message: output (its first byte names the stream) or a JSON object.

        Raises the error that ended the session.
        """
        while not self._messages:
            self.take()
        message = self._messages.popleft()
        _marks.mark("output" if isinstance(message, bytes) else f"until {message['type']}")
        if isinstance(message, dict) and message["type"] == "error":
            raise from_dict(message["error"])
        return message

    def take(self) -> None:
        """Take in what the daemon has sent, or wait for something: it need not be a message, nor a
        whole one. For who has other things to wait for; `ready` tells what came of it."""
        if self._dialogue.closed:
            raise lost()
        for message in self._dialogue.feed(self.connection.receive()):
            if isinstance(message, Reply):
                self.connection.send(message)
            else:
                self._messages.append(message)

    def ready(self) -> bool:
        """Whether `receive` has a message without waiting for the daemon."""
        return bool(self._messages)

    def send_input(self, data: bytes) -> None:
        """Write to the process's standard input."""
        self.connection.send(self._dialogue.binary(data))

    def close_input(self) -> None:
        """Let the process read an end of file."""
        self.connection.send(self._dialogue.text(type="close-stdin"))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the process's terminal its size in characters."""
        self.connection.send(self._dialogue.text(type="resize", rows=rows, columns=columns))

    def signal(self, name: str) -> None:
        """Send the process a signal, such as SIGINT."""
        self.connection.send(self._dialogue.text(type="signal", signal=name))

    def say(self, **message: Any) -> None:
        """Send a message of any other kind."""
        self.connection.send(self._dialogue.text(**message))

    def close(self) -> None:
        self.connection.close()
