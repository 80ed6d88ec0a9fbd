"""A connection to the daemon, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from sublet.sdk import _launch

_SIZE = 1 << 17


class AsyncConnection:
    """Bytes to and from the daemon's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._reading = asyncio.Lock()
        self._received: deque[bytes] = deque()

    @classmethod
    async def open(cls, path: str = "") -> AsyncConnection:
        """Connect to `path`, or to this environment's daemon, which is started if need be."""
        launch = _launch.Launch()
        while True:
            try:
                return cls(*await asyncio.open_unix_connection(path or _launch.socket_path()))
            except OSError as error:
                if path:
                    raise _launch.silent(path) from error
                await asyncio.sleep(launch.again(error))

    async def send(self, data: bytes) -> None:
        """Send all; what arrives meanwhile is kept, so that neither end waits for the other.

        An end that has gone is for `receive` to tell.
        """
        if self._writer.is_closing():
            return
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            if not self._writer.transport.get_write_buffer_size() or self._reading.locked():
                await self._writer.drain()
            else:
                async with self._reading:
                    await self._drain_and_keep()

    async def _drain_and_keep(self) -> None:
        draining = asyncio.ensure_future(self._writer.drain())
        try:
            while not draining.done():
                reading = asyncio.ensure_future(self._recv())
                try:
                    await asyncio.wait({draining, reading}, return_when=asyncio.FIRST_COMPLETED)
                    if reading.done() and not self._keep(reading.result()):
                        return
                finally:
                    reading.cancel()  # that loses nothing: what has come stays in the stream
                    await asyncio.gather(reading, return_exceptions=True)
        finally:
            if not draining.done():
                draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    def _keep(self, piece: bytes) -> bytes:
        self._received.append(piece)
        return piece

    async def receive(self) -> bytes:
        """Some bytes; none at the end."""
        async with self._reading:
            return self._received.popleft() if self._received else await self._recv()

    def pending(self) -> bool:
        """Whether `receive` returns at once with what came during `send`."""
        return bool(self._received)

    async def _recv(self) -> bytes:
        try:
            return await self._reader.read(_SIZE)
        except ConnectionError:
            return b""

    def fileno(self) -> int:
        """The socket's number, -1 once it is closed."""
        return int(self._writer.get_extra_info("socket").fileno())

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
