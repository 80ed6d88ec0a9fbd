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

STDOUT, STDERR = 1, 2
Emit = Callable[[int, bytes], Awaitable[None]]
"""Takes what a process wrote: the stream (1 or 2; a terminal has only 1) and the bytes."""

_PACKET = 8192
_CONMON_STREAMS = {1: STDOUT, 2: STDOUT, 3: STDERR}


class Streams(Protocol):
    """A process's input and output."""

    async def pump(self, emit: Emit) -> None:
        """Hand all output to `emit`, until there is no more."""

    async def send(self, data: bytes) -> None:
        """Write to standard input; ignored when nobody reads."""

    def close_input(self) -> None:
        """Let the process read an end of file."""

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size in characters."""

    def close(self) -> None:
        """Let go of the streams."""


class Attachment:
    """A connection to conmon, which shares a container's streams among its connections.

    The protocol is conmon's: a SEQPACKET socket; each packet out is a byte that names
    the stream, then data; packets in are standard input.
    """

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._control = directory / "ctl"
        try:
            self._socket.connect(str(directory / "attach"))
        except BaseException:
            self._socket.close()
            raise

    async def pump(self, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionResetError):
            while packet := await loop.sock_recv(self._socket, 4 * _PACKET):
                await emit(_CONMON_STREAMS.get(packet[0], STDOUT), packet[1:])

    async def send(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(data), _PACKET):
                await loop.sock_sendall(self._socket, data[start : start + _PACKET])

    def close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, f"1 {rows} {columns}\n".encode())
            finally:
                os.close(fd)

    def close(self) -> None:
        self._socket.close()


class Pipes:
    """The pipes of a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def pump(self, emit: Emit) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(
            self._pump_one(self._process.stdout, STDOUT, emit),
            self._pump_one(self._process.stderr, STDERR, emit),
        )

    @staticmethod
    async def _pump_one(reader: asyncio.StreamReader, stream: int, emit: Emit) -> None:
        while data := await reader.read(65536):
            await emit(stream, data)

    async def send(self, data: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    def close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        """Pipes have no size."""

    def close(self) -> None:
        self.close_input()


class Terminal:
    """The master end of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def pump(self, emit: Emit) -> None:
        while data := await self._read():
            await emit(STDOUT, data)

    async def _read(self) -> bytes:
        """What the terminal shows next; empty when its last user has gone (EIO)."""
        while True:
            try:
                return os.read(self._fd, 65536)
            except BlockingIOError:
                await _ready(self._fd, write=False)
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""
                raise

    async def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await _ready(self._fd, write=True)
            except OSError:
                return

    def close_input(self) -> None:
        """A terminal's end of file is a character, ^D, that its user types."""

    def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        os.close(self._fd)


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    add, remove = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )
    add(fd, finish)
    try:
        await done
    finally:
        remove(fd)


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
