"""Hearing of changes that others make to rules and addresses, at no cost while there are none.

The kernel tells of them over netlink(7): nfnetlink of nftables, rtnetlink of IPv4 addresses and
routes. Instances' cables have no addresses on the host's side, so their coming and going makes no
sound here; of nftables, tables, chains and rules count, not the elements that Sublet changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_ROUTE, _NETFILTER = 0, 12
_NFTABLES_GROUP, _ADDRESS_GROUP, _ROUTE_GROUP = 7, 5, 7
_NFTABLES = 10
"""nfnetlink's subsystem, in a message type's upper byte (linux/netfilter/nfnetlink.h)."""
_TELLING = frozenset({2, 3, 5, 6, 8, 11})
"""DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE, DELSET (linux/netfilter/nf_tables.h)."""
_ELEMENTS = (12, 14, 15)
"""NEWSETELEM, DELSETELEM, NEWGEN: what the coming and going of instances causes."""
_ATTACH_FILTER = 26
_SETTLING = 0.05
"""Seconds in which further changes belong to the same one."""


class Watch:
    """Listens between `open` and `close`."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Listen from now on."""
        loop = asyncio.get_running_loop()
        listening: tuple[tuple[int, tuple[int, ...], Callable[[bytes], bool]], ...] = (
            (_NETFILTER, (_NFTABLES_GROUP,), rules_changed),
            (_ROUTE, (_ADDRESS_GROUP, _ROUTE_GROUP), bool),
        )
        for family, groups, counts in listening:
            sock = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                family,
            )
            sock.bind((0, 0))
            if family == _NETFILTER:
                _ignore(sock, _ELEMENTS)
            for group in groups:
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self._sockets.append(sock)
            loop.add_reader(sock, self._hear, sock, counts)

    async def wait(self, timeout: float) -> bool:
        """Whether something has changed since the last call; `timeout` in seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        heard = self._changed.is_set()
        if heard:
            await asyncio.sleep(_SETTLING)
        self._changed.clear()
        return heard

    def close(self) -> None:
        """Listen no longer."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _hear(self, sock: socket.socket, counts: Callable[[bytes], bool]) -> None:
        try:
            if counts(sock.recv(1 << 16)):
                self._changed.set()
        except BlockingIOError:
            return
        except OSError:  # more was told than there was room for
            self._changed.set()


def _ignore(sock: socket.socket, kinds: tuple[int, ...]) -> None:
    """The kernel drops what begins with a message of these kinds, so that the daemon is not woken
    (socket(7), SO_ATTACH_FILTER): the byte at 4 is the kind; equal, drop; else take it whole."""
    load, equal, give = 0x30, 0x15, 0x06
    steps = [struct.pack("=HBBI", load, 0, 0, 4)]
    steps += [struct.pack("=HBBI", equal, len(kinds) - i, 0, k) for i, k in enumerate(kinds)]
    steps += [struct.pack("=HBBI", give, 0, 0, 0xFFFF_FFFF), struct.pack("=HBBI", give, 0, 0, 0)]
    program = ctypes.create_string_buffer(b"".join(steps))
    where = struct.pack("=H6xQ", len(steps), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, where)


def rules_changed(data: bytes) -> bool:
    """Whether nftables tells of chains and rules, or of tables and sets that went."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind >> 8 == _NFTABLES and kind & 0xFF in _TELLING:
            return True
        offset += (max(length, 16) + 3) & ~3
    return False
