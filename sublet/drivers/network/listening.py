"""Where the metadata service is called: a listening socket at each network's gateway.

nftables leads what is sent to 169.254.169.254 there, and keeps the source address: with the network
it tells who calls, because an instance can send from its own address only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sublet.drivers.network.identity import Segment

_PREFERRED = 16925
"""Below the ports that Linux gives to who asks for any: so it is hardly another program's while no
daemon runs, which calls would find then."""

_BACKLOG, _AT_ONCE = 256, 16
_PAUSE = 1.0
"""Seconds without accepting anybody, where the daemon has no descriptors left."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: an address on the network of this number."""

    network: int
    address: str


class Listeners:
    """The sockets. `take` gets each connection, and has to close it."""

    def __init__(self, take: Callable[[Caller, socket.socket], None]) -> None:
        self._take = take
        self._sockets: dict[Segment, socket.socket] = {}

    def arrange(self, segments: Iterable[Segment]) -> dict[str, int]:
        """Listen at these networks' gateways and no others; the ports, by the bridges' names."""
        wanted = set(segments)
        for segment in self._sockets.keys() - wanted:
            self._close(segment)
        for segment in wanted - self._sockets.keys():
            self._sockets[segment] = _listen(segment.gateway)
            self._heed(segment)
        return {s.bridge: int(sock.getsockname()[1]) for s, sock in self._sockets.items()}

    def close(self) -> None:
        """Listen nowhere."""
        self.arrange(())

    def _close(self, segment: Segment) -> None:
        sock = self._sockets.pop(segment)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    def _heed(self, segment: Segment) -> None:
        if sock := self._sockets.get(segment):
            asyncio.get_running_loop().add_reader(sock, self._accept, segment, sock)

    def _accept(self, segment: Segment, sock: socket.socket) -> None:
        """Take some of those who wait; the loop comes back for more."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                try:
                    connection, (address, _) = sock.accept()
                except ConnectionError:
                    continue
                except BlockingIOError:
                    raise
                except OSError:
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(sock)
                    loop.call_later(_PAUSE, self._heed, segment)
                    return
                connection.setblocking(False)
                self._take(Caller(segment.number, address), connection)


def _listen(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, _PREFERRED))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            sock.bind((address, 0))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
