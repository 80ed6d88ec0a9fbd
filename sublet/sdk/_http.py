"""HTTP as the daemon's socket needs it, without input or output: bytes in, bytes out.

Not h11 and wsproto, which the daemon uses: importing them takes 25 ms, as long as all else
that a `sublet run` does on this side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from sublet.domain.errors import DaemonUnavailable, InvalidArgument, SubletError, from_dict

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

_HEAD_LIMIT = 1 << 16


def lost() -> SubletError:
    """The error for a connection that ended before the answer did."""
    return DaemonUnavailable(
        "The daemon went away, or its answer was cut off.",
        hint="Instances go on running. What was asked for may have ended with its instance; the "
        "daemon's log says more.",
    )


def quote(text: str) -> str:
    """`text` as a part of a path (RFC 3986, section 2.1)."""
    if text.isascii() and text.replace("-", "").replace("_", "").isalnum():
        return text  # nearly always; what it takes for others, `run` and `exec` need not import
    from urllib.parse import quote

    return quote(text, safe="")


def query_of(values: dict[str, Any]) -> str:
    """A target's end with these values; what is None is left out."""
    given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items()}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return ""
    from urllib.parse import urlencode

    try:
        return "?" + urlencode(given, doseq=True)
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "What is asked for must be UTF-8.",
            hint="Of a file with another name, copy its directory.",
        ) from error


def head(method: str, target: str, **headers: str) -> bytes:
    """A request's first lines; underscores in the headers' names stand for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: sublet"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def request(method: str, target: str, body: Any = None) -> bytes:
    """A whole request, after which the connection ends; `body` is sent as JSON."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"Connection": "close", "Content_Length": str(len(data))}
    if data:
        fields["Content_Type"] = "application/json"
    return head(method, target, **fields) + data


def chunk(data: bytes) -> bytes:
    """A piece of a request's body whose length is not known (RFC 9112, section 7.1); an empty
    one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Response:
    """Takes a response apart as its bytes come (RFC 9112, sections 4 to 7)."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._data = bytearray()
        self._chunked = False
        self._left = -1
        """Bytes of the body that are to come; -1: it lasts until the connection ends."""

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was received (empty: the end); the pieces of the body that it completes."""
        self._data += data
        try:
            if not self.status and not self._read_head():
                if not data or len(self._data) > _HEAD_LIMIT:
                    raise lost()
                return
            yield from self._chunks() if self._chunked else self._pieces()
        except ValueError as error:
            raise lost() from error
        if not data and not self.done:
            self.done = self._left < 0 and not self._chunked
            if not self.done:
                raise lost()

    def rest(self) -> bytes:
        """What came after the response's end: another protocol's, after an upgrade."""
        return bytes(self._data)

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._data[:end].decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip().lower()
        del self._data[: end + 4]
        self.status = int(first.partition(" ")[2][:3])
        self._chunked = fields.get("transfer-encoding", "") == "chunked"
        self._left = int(fields.get("content-length", -1))
        if self.status in (101, 204):
            self._left = 0
        self.done = self._left == 0 and not self._chunked
        return True

    def _pieces(self) -> Iterator[bytes]:
        size = len(self._data) if self._left < 0 else min(self._left, len(self._data))
        if self.done or not size:
            return
        piece = bytes(self._data[:size])
        del self._data[:size]
        if self._left > 0:
            self._left -= size
            self.done = self._left == 0
        yield piece

    def _chunks(self) -> Iterator[bytes]:
        while not self.done:
            line = self._data.find(b"\r\n")
            if line < 0:
                return
            size = int(self._data[:line].partition(b";")[0], 16)
            begin, end = line + 2, line + 2 + size
            if len(self._data) < end + 2:
                return
            piece = bytes(self._data[begin:end])
            del self._data[: end + 2]
            self.done = size == 0
            if piece:
                yield piece


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
