"""Whether something listens at a TCP port of an instance, without the program there noticing.

A SYN is sent, as nmap's half-open scan does; the kernel, which knows of no such connection, refuses
what answers it, and nothing is accepted (RFC 9293, 3.10.7).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct

ANSWER = 0.2
"""Seconds that an answer may take."""

_SYN, _RST, _ACK = 2, 4, 16


async def listens(address: str, port: int) -> bool:
    """Whether a SYN is answered with a SYN; needs CAP_NET_RAW."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with sock, contextlib.suppress(OSError, TimeoutError):
        sock.connect((address, 0))
        own = 32768 + secrets.randbelow(28232)
        await loop.sock_sendall(sock, segment(sock.getsockname()[0], address, own, port))
        async with asyncio.timeout(ANSWER):
            while True:
                flags = answer(await loop.sock_recv(sock, 256), port, own)
                if flags is not None:
                    return flags & (_SYN | _ACK | _RST) == _SYN | _ACK
    return False


def segment(source: str, target: str, own: int, port: int) -> bytes:
    """A SYN without data, with its checksum."""
    head = struct.pack(">HHIIBBHHH", own, port, secrets.randbits(32), 0, 5 << 4, _SYN, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack(">HH", 6, len(head))
    total = sum(struct.unpack(">16H", pseudo + head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:16] + struct.pack(">H", checksum) + head[18:]


def answer(packet: bytes, port: int, own: int) -> int | None:
    """The flags of an IPv4 packet from that port to ours; None for any other."""
    header = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < header + 14 or header < 20:
        return None
    source, target = struct.unpack_from(">HH", packet, header)
    return packet[header + 13] if (source, target) == (port, own) else None
