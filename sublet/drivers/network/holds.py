"""Ports that are held for instances that sleep: nobody else on this host gets them.

The sockets never answer: what comes for them is dropped by nftables, and, where its rules are gone,
by a filter of their own (socket(7), SO_ATTACH_FILTER), so that a client's packet is repeated in
any case, and not refused.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

from sublet.domain.ports import Port

_ATTACH_FILTER = 26


class Holds:
    """The held ports of one daemon's instances."""

    def __init__(self) -> None:
        self._sockets: dict[str, dict[Port, socket.socket]] = {}

    def hold(self, instance_id: str, ports: Sequence[Port]) -> list[Port]:
        """Hold the ports; those that somebody else has."""
        held = self._sockets.setdefault(instance_id, {})
        taken = []
        for port in ports:
            if port not in held:
                try:
                    held[port] = _bound(port)
                except OSError:
                    taken.append(port)
        return taken

    def release(self, instance_id: str) -> None:
        """Hold none of its ports any more."""
        for sock in self._sockets.pop(instance_id, {}).values():
            sock.close()


def _bound(port: Port) -> socket.socket:
    tcp = port.protocol == "tcp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        _drop_all(sock)
        if tcp:  # connections that have just ended are no hindrance
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_ip, port.host_port))
        if tcp:  # a port that is only bound can be bound by others as well
            sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def _drop_all(sock: socket.socket) -> None:
    """A filter of one instruction, `ret #0`: take nothing of any packet."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    where = struct.pack("=H6xQ", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, where)
