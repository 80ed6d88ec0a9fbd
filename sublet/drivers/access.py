"""The way into an instance's files, whatever kind of instance it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from sublet.archive.transfer import Received
from sublet.domain.file_info import FileInfo, Question
from sublet.drivers.squashfs import Source


class Sender(Protocol):
    """Somebody in the instance who sends what was asked for."""

    def stream(self) -> AsyncIterator[bytes]:
        """What it sends; the error for which it did not send all of it."""


class Taker(Protocol):
    """Somebody in the instance who takes what is to be put there."""

    async def feed(self, pieces: AsyncIterator[bytes]) -> Received:
        """Have it unpack an archive; what it made of it."""


class Access(Protocol):
    """What can be done with the files of one instance."""

    def sending(self, path: str, *, follow: bool) -> AbstractAsyncContextManager[Sender]:
        """The file or directory at `path` as a tar stream; `follow` a link there."""

    def receiving(
        self, path: str, *, archive: bool, keep: bool
    ) -> AbstractAsyncContextManager[Taker]:
        """What is fed lands at `path` as `cp` says, or, with `archive`, in the directory `path`.
        `keep`: owners are those of the archive, not root."""

    def fetching(self, path: str) -> AbstractAsyncContextManager[Sender]:
        """What the file at `path` holds, links followed."""

    def storing(self, path: str, mode: int) -> AbstractAsyncContextManager[Taker]:
        """What is fed is all that the file at `path` holds then; it is made if need be, with the
        directories to it, as root's. `mode`: its permission bits, or KEEP."""

    def watching(self, path: str, *, recursive: bool) -> AbstractAsyncContextManager[Sender]:
        """What happens at `path`, as `file_events.text` has it, as it happens."""

    async def ask(self, question: Question) -> list[FileInfo]:
        """Do what is asked of a path; what is told of it. Raises NoSuchPath, CopyFailed."""

    def exporting(self) -> AbstractAsyncContextManager[Sender]:
        """The whole root as a tar stream, without what is mounted in it."""

    def producing(self) -> AbstractContextManager[Source]:
        """What writes the whole root to a packer, as long as the block lasts."""
