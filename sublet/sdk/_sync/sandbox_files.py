# Made from ../_async/sandbox_files.py by scripts/unasync.py; edit that file.
"""The files of a sandbox.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sublet.domain.errors import CopyFailed, NoSuchPath
from sublet.sdk._sync.client import Client
from sublet.sdk._sync.deadline import deadline
from sublet.sdk._sync.sandbox_watch import Watch
from sublet.sdk.sandbox_results import FileInfo, info

Entries = list[FileInfo]
MOST = 1 << 30
"""Bytes of a file that `read` takes in, unless another limit is asked for."""


class SandboxFiles:
    """Files and directories of one sandbox. Paths are absolute, or start at its root.

    Every method raises NoSuchPath where there is nothing, CopyFailed where it cannot be done, and
    TimeoutExceeded after `timeout` seconds, by default those of the sandbox.
    """

    def __init__(self, client: Client, name: str, timeout: float) -> None:
        self._client, self._name, self._timeout = client, name, timeout

    def read(self, path: str, *, limit: int = MOST, timeout: float | None = None) -> bytes:
        """What the file holds; more than `limit` bytes are an error. Links are followed."""
        found = bytearray()
        with deadline(self._seconds(timeout), f"Reading {path}"):
            for piece in self._client.read_file(self._name, path):
                found += piece
                if len(found) > limit:
                    raise CopyFailed(
                        f"{path} holds more than {limit} bytes.",
                        hint="Read a part of it with a command such as `head -c`, give a larger "
                        "limit, or copy it: `client.copy_from`.",
                    )
        return bytes(found)

    def read_text(self, path: str, *, timeout: float | None = None) -> str:
        """What the file holds, as UTF-8; bytes that are none are U+FFFD."""
        return (self.read(path, timeout=timeout)).decode(errors="replace")

    def write(
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
        with deadline(self._seconds(timeout), f"Writing {path}"):
            self._client.write_file(self._name, path, pieces, mode=mode)

    def list(
        self, path: str = "/", *, depth: int = 1, timeout: float | None = None
    ) -> Entries:
        """What is in the directory, by name, and with `depth` in those below it. Symbolic links
        are told of as such."""
        return self._ask("list", path, timeout, depth=depth)

    def stat(self, path: str, *, timeout: float | None = None) -> FileInfo:
        """What is at the path, links followed."""
        return (self._ask("stat", path, timeout))[0]

    def exists(self, path: str, *, timeout: float | None = None) -> bool:
        """Whether there is anything at the path, links followed."""
        try:
            self._ask("stat", path, timeout)
        except NoSuchPath:
            return False
        return True

    def mkdir(self, path: str, *, timeout: float | None = None) -> None:
        """Make the directory, and those above it; one that is there is fine."""
        self._ask("make", path, timeout)

    def remove(self, path: str, *, timeout: float | None = None) -> None:
        """Remove the file, or the directory with all that is in it. A link goes itself."""
        self._ask("remove", path, timeout)

    def rename(self, path: str, to: str, *, timeout: float | None = None) -> None:
        """Give the file or directory the path `to`; a file that is there is replaced."""
        self._ask("rename", path, timeout, to=to)

    def watch(self, path: str, *, recursive: bool = False, timeout: float = math.inf) -> Watch:
        """Iterates over what happens to what is in the directory, or to the file: FileEvents.

        `recursive`: and in all directories below it. It ends after `timeout` seconds, with the
        sandbox, or with the directory; a sandbox has 16 at a time.
        """
        return Watch(self._client, self._name, path, recursive, timeout)

    def _ask(self, verb: str, path: str, timeout: float | None, **more: object) -> Entries:
        with deadline(self._seconds(timeout), f"To {verb} {path}"):
            rows = self._client.ask_files(self._name, verb, path, **more)
        return [info(row) for row in rows]

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def _cut(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    """The data in pieces that are sent one by one."""
    if not isinstance(data, bytes | bytearray | memoryview):
        return data
    return (bytes(data[begin : begin + 65536]) for begin in range(0, len(data), 65536))
