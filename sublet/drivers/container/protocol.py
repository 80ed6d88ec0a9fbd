"""What is said between the daemon and a container's supervisor: `supervisor/protocol.h`.

One message is one packet of a SEQPACKET socket: a byte that names its type, then bytes or
numbers (int32, in the host's byte order).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from sublet.drivers.descriptors import connected

MESSAGE = 1 << 15
"""Bytes that one message may carry beside its type."""


class Ask(IntEnum):
    """What a client may say."""

    ATTACH = ord("a")
    EXECUTE = ord("e")
    INPUT = ord("i")
    CLOSE = ord("c")
    WINDOW = ord("w")
    SIGNAL = ord("k")


class Tell(IntEnum):
    """What a supervisor may say."""

    STARTED = ord("s")
    FAILED = ord("f")
    OUTPUT = ord("o")
    ERRORS = ord("r")
    EXITED = ord("x")


class Message(NamedTuple):
    """What a supervisor said."""

    kind: int
    data: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that the message carries."""
        return struct.unpack(f"={len(self.data) // 4}i", self.data[: len(self.data) & ~3])

    @property
    def number(self) -> int:
        """The first of them; -1 where there is none."""
        return next(iter(self.numbers), -1)


def packet(kind: Ask, data: bytes = b"") -> bytes:
    """A message that carries bytes."""
    return bytes([kind]) + data


def numbers(kind: Ask, *values: int) -> bytes:
    """A message that carries numbers."""
    return packet(kind, struct.pack(f"={len(values)}i", *values))


def execution(pid_file: str, argv: list[str]) -> bytes:
    """The message that has the supervisor start `argv`, a runtime that leaves a pid in a file."""
    return packet(Ask.EXECUTE, b"".join(os.fsencode(word) + b"\0" for word in (pid_file, *argv)))


def pair() -> tuple[socket.socket, socket.socket]:
    """A connection: our end, and the supervisor's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def connect(directory: Path) -> socket.socket:
    """A further connection to the supervisor whose files are in the directory. Raises OSError
    where there is none."""
    return connected(directory, "socket", socket.SOCK_SEQPACKET)


def exit_code(directory: Path) -> int | None:
    """The exit code that the supervisor left there, None if it left none (it was killed)."""
    try:
        return int((directory / "exit").read_text())
    except (FileNotFoundError, ValueError):
        return None


def exit_time(directory: Path) -> float | None:
    """When the supervisor left the exit code there, in seconds since the epoch; None if never."""
    try:
        return (directory / "exit").stat().st_mtime
    except FileNotFoundError:
        return None


async def receive(connection: socket.socket) -> Message | None:
    """What the supervisor says next; None when it has gone.

    One that ended without reading all that it was told leaves an error, which is told once, before
    what it had said: that is read all the same. Others have their turn before each message: where
    one waits already `sock_recv` does not wait, so that an instance which floods would have the
    daemon to itself, and no deadline would ever pass.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    try:
        data = await loop.sock_recv(connection, MESSAGE + 1)
    except ConnectionError:
        try:
            data = await loop.sock_recv(connection, MESSAGE + 1)
        except ConnectionError:
            return None
    return Message(data[0], data[1:]) if data else None
