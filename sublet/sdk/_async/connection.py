"""A connection to the daemon, awaited."""

from __future__ import annotations

import asyncio

from sublet.sdk import _launch


class AsyncConnection:
    """Bytes to and from the daemon's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

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
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Some bytes; none at the end."""
        try:
            return await self._reader.read(1 << 17)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
