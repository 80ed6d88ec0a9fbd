"""HTTP and WebSocket without input or output: bytes in, bytes out.

What is sent and received is the business of the connections, one for each way of
waiting; what it means is decided here, once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from sublet.domain.errors import DaemonUnavailable, SubletError, from_dict

_HOST = "sublet"


def lost() -> SubletError:
    """The error for a connection that ended too early."""
    return DaemonUnavailable(
        "The daemon went away in the middle of a request.",
        hint="Instances go on running; the next command starts it again.",
    )


class Exchange:
    """One HTTP request and its response (RFC 9112)."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self.status = 0
        self.done = False

    def request(self, method: str, target: str, body: Any = None) -> bytes:
        """The bytes to send; `body` is sent as JSON."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = [("Host", _HOST), ("Connection", "close"), ("Content-Length", str(len(data)))]
        if data:
            headers.append(("Content-Type", "application/json"))
        sent = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        sent += self._http.send(h11.Data(data=data)) or b""
        return sent + (self._http.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was received (empty: the end); the pieces of the body that it completes."""
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.done = True
                    return
                elif event is h11.NEED_DATA:
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    raise lost()
        except h11.RemoteProtocolError as error:
            raise lost() from error

    @property
    def failed(self) -> bool:
        return self.status >= 400


def error_of(status: int, body: bytes) -> SubletError:
    """The error that a response with this status carries."""
    try:
        return from_dict(json.loads(body))
    except (ValueError, AttributeError):
        return SubletError(f"The daemon answered with status {status}.")


class Lines:
    """Cuts a stream of pieces into JSON lines."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._partial = (self._partial + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


class Dialogue:
    """One WebSocket conversation, from the client's side (RFC 6455)."""

    def __init__(self) -> None:
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._text: list[str] = []
        self._bytes: list[bytes] = []
        self._refusal = b""
        self.closed = False

    def open(self, target: str, request: Any) -> bytes:
        """The bytes that open the conversation; `request` follows once it is accepted."""
        self._first = request
        return self._ws.send(Request(host=_HOST, target=target))

    def text(self, **message: Any) -> bytes:
        return self._ws.send(TextMessage(data=json.dumps(message)))

    def binary(self, data: bytes) -> bytes:
        return self._ws.send(BytesMessage(data=data))

    def close(self) -> bytes:
        return b"" if self.closed else self._ws.send(CloseConnection(code=1000))

    def feed(self, data: bytes) -> Iterator[bytes | dict[str, Any] | Reply]:
        """Take what was received (empty: the end): binary and JSON messages, and Replies
        that must be sent back."""
        self._ws.receive_data(data or None)
        for event in self._ws.events():
            if isinstance(event, AcceptConnection):
                yield Reply(self.text(**self._first))
            elif isinstance(event, BytesMessage):
                self._bytes.append(bytes(event.data))
                if event.message_finished:
                    yield b"".join(self._bytes)
                    self._bytes.clear()
            elif isinstance(event, TextMessage):
                self._text.append(event.data)
                if event.message_finished:
                    yield json.loads("".join(self._text))
                    self._text.clear()
            elif isinstance(event, Ping):
                yield Reply(self._ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.closed = True
            elif isinstance(event, RejectConnection | RejectData):
                yield from self._refused(event)
        if not data and not self.closed:
            raise lost()

    def _refused(self, event: RejectConnection | RejectData) -> Iterator[dict[str, Any]]:
        if isinstance(event, RejectConnection):
            self._status = event.status_code
            if event.has_body:
                return
        else:
            self._refusal += bytes(event.data)
            if not event.body_finished:
                return
        self.closed = True
        yield {"type": "error", "error": error_of(self._status, self._refusal).to_dict()}


class Reply(bytes):
    """Bytes that the protocol itself must send back."""
