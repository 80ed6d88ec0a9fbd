"""WebSocket from the client's side (RFC 6455), without input or output: bytes in, bytes out.

No extension is offered, so none is in use; the peer is the daemon, on a socket that nobody
else can have made: its proof of speaking the protocol (section 4.2.2, 5.4) is not looked at.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Iterator

from sublet.sdk._http import Response, error_of, head, lost

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_NORMAL = (1000).to_bytes(2, "big")


class Reply(bytes):
    """Bytes that the protocol itself must send back."""


def frame(opcode: int, data: bytes) -> bytes:
    """One final frame, masked as a client's must be (sections 5.2 and 5.3)."""
    size, mask = len(data), os.urandom(4)
    first = bytes([0x80 | opcode])
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return first + length + mask + masked.to_bytes(size, "big")


class Frames:
    """Cuts what a server sends into frames: opcode, whether it is final, payload."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bool, bytes]]:
        self._data += data
        while len(self._data) >= 2:
            short = self._data[1] & 0x7F
            extra = {126: 2, 127: 8}.get(short, 0)
            begin = 2 + extra
            if len(self._data) < begin:
                return
            size = int.from_bytes(self._data[2:begin], "big") if extra else short
            if len(self._data) < begin + size:
                return
            opcode, final = self._data[0] & 0x0F, bool(self._data[0] & 0x80)
            payload = bytes(self._data[begin : begin + size])
            del self._data[: begin + size]
            yield opcode, final, payload


class Dialogue:
    """One conversation: binary messages, and texts that are JSON objects."""

    def __init__(self) -> None:
        self._answer = Response()
        self._frames = Frames()
        self._refusal = b""
        self._kind = 0
        self._parts: list[bytes] = []
        self.closed = False

    def open(self, target: str, request: Any) -> bytes:
        """The bytes that open the conversation; `request` follows once it is accepted."""
        self._first = request
        return head(
            "GET",
            target,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Key=binascii.b2a_base64(os.urandom(16), newline=False).decode(),
            Sec_WebSocket_Version="13",
        )

    def text(self, **message: Any) -> bytes:
        return frame(_TEXT, json.dumps(message).encode())

    def binary(self, data: bytes) -> bytes:
        return frame(_BINARY, data)

    def close(self) -> bytes:
        return b"" if self.closed else frame(_CLOSE, _NORMAL)

    def feed(self, data: bytes) -> Iterator[bytes | dict[str, Any] | Reply]:
        """Take what was received (empty: the end): binary and JSON messages, and Replies
        that must be sent back."""
        if self._answer.status != 101:
            yield from self._opening(data)
        else:
            yield from self._messages(data)
        if not data and not self.closed:
            raise lost()

    def _opening(self, data: bytes) -> Iterator[bytes | dict[str, Any] | Reply]:
        self._refusal += b"".join(self._answer.feed(data))
        if not self._answer.done:
            return
        if self._answer.status != 101:
            self.closed = True
            error = error_of(self._answer.status, self._refusal)
            yield {"type": "error", "error": error.to_dict()}
            return
        yield Reply(self.text(**self._first))
        yield from self._messages(self._answer.rest())

    def _messages(self, data: bytes) -> Iterator[bytes | dict[str, Any] | Reply]:
        for opcode, final, payload in self._frames.feed(data):
            if opcode == _PING:
                yield Reply(frame(_PONG, payload))
            elif opcode == _CLOSE:
                self.closed = True
            elif opcode in (_CONTINUATION, _TEXT, _BINARY):
                self._kind = opcode or self._kind
                self._parts.append(payload)
                if final:
                    whole = b"".join(self._parts)
                    self._parts.clear()
                    yield whole if self._kind == _BINARY else json.loads(whole)
