"""rtnetlink(7) requests over a socket that lives as long as the request.

pyroute2 encodes and decodes the messages; its own sockets run an event loop of their
own, which costs more than the requests do. All calls block: milliseconds, or as long as
another program holds the kernel's RTNL lock; DEADLINE at most.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

DEADLINE = 10.0
"""Seconds that an answer may take."""

AT_ONCE = 64
"""Requests whose answers surely fit the socket's buffer."""

NEWLINK, DELLINK, SETLINK, NEWADDR, GETADDR = 16, 17, 19, 20, 22
NEWROUTE, GETROUTE = 24, 26
CREATE = 0x400 | 0x200
"""NLM_F_CREATE and NLM_F_EXCL."""

_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
class Request:
    """One message: its type, pyroute2's class for its body, header fields and attributes."""

    kind: int
    form: type[Any]
    fields: dict[str, Any] = field(default_factory=dict)
    attributes: Sequence[tuple[str, Any]] = ()
    flags: int = 0
    ignore: frozenset[int] = frozenset()
    """Error numbers that are as good as success."""


def open_socket() -> socket.socket:
    """A NETLINK_ROUTE socket in the network namespace of the calling thread."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    sock.settimeout(DEADLINE)
    return sock


def send(requests: Sequence[Request], sock: socket.socket | None = None) -> None:
    """Carry out the requests in order, AT_ONCE sent at once.

    Raises OSError with the errno of the first that failed; those after it were still
    carried out. Without `sock`, in the network namespace of the calling thread.
    """
    problem = None
    with contextlib.ExitStack() as stack:
        if requests and sock is None:
            sock = stack.enter_context(open_socket())
        for start in range(0, len(requests), AT_ONCE):
            assert sock
            failed = _exchange(sock, requests[start : start + AT_ONCE])
            problem = problem or failed
    if problem:
        what = dict(problem[1].attributes).get("IFLA_IFNAME", f"request {problem[1].kind}")
        raise OSError(problem[0], os.strerror(problem[0]), f"netlink: {what}")


def _exchange(sock: socket.socket, requests: Sequence[Request]) -> tuple[int, Request] | None:
    """Send the requests and wait for all answers; the first failure."""
    sock.sendto(b"".join(_encode(r, _ACK, i) for i, r in enumerate(requests)), (0, 0))
    missing, problem = len(requests), None
    while missing:
        for kind, number, body in _messages(sock.recv(65536)):
            if kind != _ERROR or number >= len(requests):
                continue
            missing -= 1
            errno = -struct.unpack_from("=i", body)[0]
            if errno and errno not in requests[number].ignore:
                problem = problem or (errno, requests[number])
    return problem


def dump(request: Request) -> list[Any]:
    """Every object of the request's kind, as pyroute2 decodes it."""
    found: list[Any] = []
    with open_socket() as sock:
        sock.sendto(_encode(request, _DUMP, 0), (0, 0))
        while True:
            data = sock.recv(1 << 20)
            for kind, _, body in _messages(data):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    errno = -struct.unpack_from("=i", body)[0]
                    raise OSError(errno, os.strerror(errno), "netlink dump")
                message = request.form(_HEADER.pack(len(body) + 16, kind, 0, 0, 0) + body)
                message.decode()
                found.append(message)


def _encode(request: Request, flags: int, number: int) -> bytes:
    message = request.form()
    for key, value in request.fields.items():
        message[key] = value
    message["attrs"] = list(request.attributes)
    message["header"] = {
        "type": request.kind,
        "flags": _REQUEST | flags | request.flags,
        "sequence_number": number,
        "pid": 0,
    }
    message.encode()
    return bytes(message.data)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
        yield kind, number, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3
