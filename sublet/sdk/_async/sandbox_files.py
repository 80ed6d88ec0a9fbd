"""The files of a sandbox.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sublet.domain.errors import CopyFailed, NoSuchPath
from sublet.sdk._async.client import AsyncClient
from sublet.sdk._async.deadline import deadline
from sublet.sdk._async.sandbox_watch import AsyncWatch
from sublet.sdk.sandbox_results import FileInfo, info

Entries = list[FileInfo]
MOST = 1 << 30
"""Bytes of a file that `read` takes in, unless another limit is asked for."""


class AsyncSandboxFiles:
    """Files and directories of one sandbox. Paths are absolute, or start at its root.

    Every method raises NoSuchPath where there is nothing, CopyFailed where it cannot be done, and
    TimeoutExceeded after `timeout` seconds, by default those of the sandbox.
    """

    def __init__(self, client: AsyncClient, name: str, timeout: float) -> None:
        self._client, self._name, self._timeout = client, name, timeout

    async def read(self, path: str, *, limit: int = MOST, timeout: float | None = None) -> bytes:
        """What the file holds; more than `limit` bytes are an error. Links are followed."""
        found = bytearray()
        async with deadline(self._seconds(timeout), f"Reading {path}"):
            async for piece in self._client.read_file(self._name, path):
                found += piece
                if len(found) > limit:
                    raise CopyFailed(
                        f"{path} holds more than {limit} bytes.",
                        hint="Read a part of it with a command such as `head -c`, give a larger "
                        "limit, or copy it: `client.copy_from`.",
                    )
        return bytes(found)

    async def read_text(self, path: str, *, timeout: float | None = None) -> str:
        """What the file holds, as UTF-8; bytes that are none are U+FFFD."""
        return (await self.read(path, timeout=timeout)).decode(errors="replace")

    async def write(
        self,
        path: str,
        data: bytes | str | Iterable[bytes],
        *,
        mode: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Let the file hold `data` and nothing else, as `open(path, "wb")` does.

        It is made if need be, with the directories to it, as root's with mode 0644; one that is
        there keeps owner and mode. `mode`: its permission bits then.
        """
        pieces = _cut(data.encode() if isinstance(data, str) else data)
        async with deadline(self._seconds(timeout), f"Writing {path}"):
            await self._client.write_file(self._name, path, pieces, mode=mode)

    async def list(
        self, path: str = "/", *, depth: int = 1, timeout: float | None = None
    ) -> Entries:
        """What is in the directory, by name, and with `depth` in those below it. Symbolic links
        are told of as such."""
        return await self._ask("list", path, timeout, depth=depth)

    async def stat(self, path: str, *, timeout: float | None = None) -> FileInfo:
        """What is at the path, links followed."""
        return (await self._ask("stat", path, timeout))[0]

    async def exists(self, path: str, *, timeout: float | None = None) -> bool:
        """Whether there is anything at the path, links followed."""
        try:
            await self._ask("stat", path, timeout)
        except NoSuchPath:
            return False
        return True

    async def mkdir(self, path: str, *, timeout: float | None = None) -> None:
        """Make the directory, and those above it; one that is there is fine."""
        await self._ask("make", path, timeout)

    async def remove(self, path: str, *, timeout: float | None = None) -> None:
        """Remove the file, or the directory with all that is in it. A link goes itself."""
        await self._ask("remove", path, timeout)

    async def rename(self, path: str, to: str, *, timeout: float | None = None) -> None:
        """Give the file or directory the path `to`; a file that is there is replaced."""
        await self._ask("rename", path, timeout, to=to)

    def watch(self, path: str, *, recursive: bool = False, timeout: float = math.inf) -> AsyncWatch:
        """Iterates over what happens to what is in the directory, or to the file: FileEvents.

        `recursive`: and in all directories below it. It ends after `timeout` seconds, with the
        sandbox, or with the directory; a sandbox has 16 at a time.
        """
        return AsyncWatch(self._client, self._name, path, recursive, timeout)

    async def _ask(self, verb: str, path: str, timeout: float | None, **more: object) -> Entries:
        async with deadline(self._seconds(timeout), f"To {verb} {path}"):
            rows = await self._client.ask_files(self._name, verb, path, **more)
        return [info(row) for row in rows]

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def _cut(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    """The data in pieces that are sent one by one."""
    if not isinstance(data, bytes | bytearray | memoryview):
        return data
    return (bytes(data[begin : begin + 65536]) for begin in range(0, len(data), 65536))
