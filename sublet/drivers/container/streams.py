"""The standard streams of processes in containers."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.descriptors import ready

STDOUT, STDERR = 1, 2
Emit = Callable[[int, bytes], Awaitable[None]]
"""Takes what a process wrote: the stream (1 or 2; a terminal has only 1) and the bytes."""

_PIECE = 65536
_STREAMS: dict[int, int] = {Tell.OUTPUT: STDOUT, Tell.ERRORS: STDERR}


class Streams(Protocol):
    """A process's input and output."""

    async def pump(self, emit: Emit) -> None:
        """Hand all output to `emit`, until there is no more."""

    async def send(self, data: bytes) -> None:
        """Write to standard input; ignored when nobody reads."""

    async def close_input(self) -> None:
        """Let the process read an end of file."""

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size in characters."""

    def close(self) -> None:
        """Let go of the streams."""


class Attachment:
    """A container's streams, shared among all who are attached: a connection to its supervisor,
    which has been told to attach it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    def open(cls, directory: Path) -> Attachment:
        """Attach to the container whose supervisor's files are in the directory, from now on.

        Raises OSError where there is no supervisor.
        """
        connection = protocol.connect(directory)
        connection.send(protocol.packet(Ask.ATTACH))  # there is room: it is the first
        return cls(connection)

    async def pump(self, emit: Emit) -> None:
        while message := await protocol.receive(self._socket):
            stream = _STREAMS.get(message.kind)
            if stream:
                await emit(stream, message.data)

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), protocol.MESSAGE):
            await self._say(protocol.packet(Ask.INPUT, data[start : start + protocol.MESSAGE]))

    async def close_input(self) -> None:
        await self._say(protocol.packet(Ask.CLOSE))

    async def resize(self, rows: int, columns: int) -> None:
        await self._say(protocol.numbers(Ask.WINDOW, rows, columns))

    async def _say(self, message: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, message)
        except ConnectionError:  # it has ended: `pump` tells, if only whoever sends lets it run
            await asyncio.sleep(0)

    def close(self) -> None:
        self._socket.close()


class Pipes:
    """Our ends of the pipes that are a process's standard input, output and errors."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        for fd in (stdin, stdout, stderr):
            os.set_blocking(fd, False)
        self._stdin = stdin
        self._outputs = {STDOUT: stdout, STDERR: stderr}

    async def pump(self, emit: Emit) -> None:
        await asyncio.gather(*(_pump(fd, n, emit) for n, fd in self._outputs.items()))

    async def send(self, data: bytes) -> None:
        if self._stdin >= 0:
            await _write(self._stdin, data)

    async def close_input(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    async def resize(self, rows: int, columns: int) -> None:
        """Pipes have no size."""

    def complaint(self) -> str:
        """What has been written to standard error until now."""
        return _now(self._outputs[STDERR])

    def close(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        for fd in self._outputs.values():
            os.close(fd)
        self._outputs = {}


class Terminal:
    """The master end of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def pump(self, emit: Emit) -> None:
        await _pump(self._fd, STDOUT, emit)

    async def send(self, data: bytes) -> None:
        await _write(self._fd, data)

    async def close_input(self) -> None:
        """A terminal's end of file is a character, ^D, that its user types."""

    async def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def complaint(self) -> str:
        """What the terminal shows until now."""
        return _now(self._fd)

    def close(self) -> None:
        os.close(self._fd)


async def _pump(fd: int, stream: int, emit: Emit) -> None:
    while data := await _read(fd):
        await emit(stream, data)


async def _read(fd: int) -> bytes:
    """What comes next; empty at the end, for a terminal when its last user has gone (EIO)."""
    while True:
        try:
            return os.read(fd, _PIECE)
        except BlockingIOError:
            await ready(fd)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise


def _now(fd: int) -> str:
    with contextlib.suppress(OSError):
        return os.read(fd, _PIECE).decode(errors="replace")
    return ""


async def _write(fd: int, data: bytes) -> None:
    """Write all of it; what nobody reads any more is dropped."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            await ready(fd, write=True)
        except OSError:
            return


class ConsoleSocket:
    """Where the runtime hands over a terminal's master end (OCI runtime `--console-socket`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(1)

    async def receive(self) -> int:
        """The descriptor of the terminal."""
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self._listener)
        with connection:
            connection.setblocking(True)
            connection.settimeout(5)
            fds = array.array("i")
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(fds.itemsize))
            for _, _, data in ancillary:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return fds[0]

    def close(self) -> None:
        self._listener.close()
        self.path.unlink(missing_ok=True)
