"""Hearing who knocks at a port that is held: the kernel tells of the packet that it dropped.

nftables hands the first bytes of the packet to an nfnetlink log group, which one socket may read.
Nothing is read while nobody knocks. Source: linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

_NETFILTER, _ULOG = 12, 4
_PACKET, _CONFIG = _ULOG << 8, (_ULOG << 8) | 1
_COMMAND, _MODE, _TIMEOUT, _THRESHOLD = 1, 2, 4, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD = 9
_TYPE = 0x3FFF
"""An attribute's type without its flags (netlink(7), NLA_F_NESTED and NLA_F_NET_BYTEORDER)."""

HEAD = 64
"""Bytes of a packet that are told: an IPv4 header with some options, and the ports."""

_PROTOCOLS = {6: "tcp", 17: "udp"}


@dataclass(frozen=True, slots=True)
class Knock:
    """A packet that was dropped: who sent it, and the host's address and port that it was for."""

    protocol: str
    source: str
    address: str
    port: int


class Knocks:
    """Listens on one log group between `open` and `close`."""

    def __init__(self, group: int) -> None:
        self.group = group
        self._socket: socket.socket | None = None

    def open(self, heard: Callable[[Knock], None]) -> None:
        """Listen from now on, if nobody else does. Raises OSError."""
        if self._socket is not None:
            return
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        try:
            sock.settimeout(5)
            sock.bind((0, 0))
            for attributes in (
                _attribute(_COMMAND, bytes([_BIND])),
                _attribute(_MODE, struct.pack(">IBx", HEAD, _COPY_PACKET)),
                _attribute(_TIMEOUT, _integer(1)) + _attribute(_THRESHOLD, _integer(1)),
            ):
                _configure(sock, self.group, attributes)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._hear, sock, heard)

    def close(self) -> None:
        """Listen no longer."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    @staticmethod
    def _hear(sock: socket.socket, heard: Callable[[Knock], None]) -> None:
        try:
            data = sock.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # more was told than there was room for: they knock again
            if error.errno != errno.ENOBUFS:
                log.warning("knocks cannot be heard: %s", error)
            return
        for knock in knocks(data):
            heard(knock)


def knocks(data: bytes) -> Iterator[Knock]:
    """What a datagram of the kernel tells of; what makes no sense is left out."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        end = min(offset + max(length, 16), len(data))
        if kind == _PACKET:
            for number, value in _attributes(data[offset + 20 : end]):
                found = _knock(value) if number == _PAYLOAD else None
                if found:
                    yield found
        offset = (end + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, number = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield number & _TYPE, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _knock(packet: bytes) -> Knock | None:
    """Of an IPv4 packet's first bytes (RFC 791)."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 15) * 4
    protocol = _PROTOCOLS.get(packet[9])
    if protocol is None or header < 20 or len(packet) < header + 4:
        return None
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    (port,) = struct.unpack_from(">H", packet, header + 2)
    return Knock(protocol, source, target, port)


def _configure(sock: socket.socket, group: int, attributes: bytes) -> None:
    body = struct.pack(">BBH", socket.AF_UNSPEC, 0, group) + attributes
    sock.send(struct.pack("=IHHII", 16 + len(body), _CONFIG, 1 | 4, 1, 0) + body)
    answer = sock.recv(4096)
    problem = -int(struct.unpack_from("=i", answer, 16)[0])
    if problem:
        raise OSError(problem, f"nfnetlink_log group {group} cannot be bound")


def _attribute(number: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, number) + value + b"\0" * (-length % 4)


def _integer(value: int) -> bytes:
    return struct.pack(">I", value)
