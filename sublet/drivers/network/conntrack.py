"""Forgetting connections, so that those which go on are judged anew. Blocks.

nfnetlink's conntrack subsystem (linux/netfilter/nfnetlink_conntrack.h): a dump of all, and a
deletion of each whose originator is meant.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _ZONE, _TUPLE_IP, _V4_SRC = 1, 18, 1, 1
_PATIENCE = 5.0
"""Seconds that the kernel may take for a message."""


def forget(sources: Collection[IPv4Address]) -> int:
    """No connection that these addresses began is known any more; how many were."""
    with _opened() as sock:
        found = list(_begun(sock, sources))
        for number, attributes in enumerate(found):
            sock.send(_message(_DELETE, _REQUEST | _ACK, attributes, number))
            sock.recv(1 << 16)  # or it has just ended by itself
    return len(found)


def _opened() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    sock.settimeout(_PATIENCE)
    sock.bind((0, 0))
    return sock


def _message(kind: int, flags: int, attributes: bytes, number: int = 0) -> bytes:
    body = struct.pack(">BBH", socket.AF_INET, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def _begun(sock: socket.socket, sources: Collection[IPv4Address]) -> Iterator[bytes]:
    """What names each connection that these began, as attributes."""
    wanted = {address.packed for address in sources}
    sock.send(_message(_GET, _REQUEST | _DUMP, b""))
    while True:
        data = sock.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind in (_ERROR, _DONE) or length < 16:
                return
            given = dict(_attributes(data[offset + 20 : offset + length]))
            if _source(given.get(_TUPLE_ORIG, b"")) in wanted:
                yield b"".join(_packed(k, given[k]) for k in (_TUPLE_ORIG, _ZONE) if k in given)
            offset += (length + 3) & ~3


def _source(text: bytes) -> bytes:
    addresses = dict(_attributes(text)).get(_TUPLE_IP, b"")
    return dict(_attributes(addresses)).get(_V4_SRC, b"")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _packed(kind: int, data: bytes) -> bytes:
    nested = 0x8000 if kind == _TUPLE_ORIG else 0
    head = struct.pack("=HH", 4 + len(data), kind | nested)
    return head + data + b"\0" * (-len(data) % 4)
