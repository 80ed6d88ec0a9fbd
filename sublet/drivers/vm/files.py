"""Files of an instance that is a virtual machine: its guest writes its file systems, so that the
host never mounts them, and copies them, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sublet.archive.entry import Entry
from sublet.archive.reader import Reader
from sublet.archive.transfer import Received, arrival
from sublet.domain import file_info
from sublet.domain.copying import Kind, Landing, is_contents, top_of
from sublet.domain.errors import CopyFailed, CorruptArchive, SubletError
from sublet.domain.file_info import KEEP, FileInfo, Question
from sublet.drivers.descriptors import ready
from sublet.drivers.vm.tool import SILENCE, Execute, Tool, working

_ANSWER, _LISTING = 1 << 14, 1 << 26
_BEGINNING = 16 << 20
"""Bytes of an archive in which its first entry must be complete."""


class Outgoing:
    """A program in the guest that sends an archive."""

    def __init__(self, tool: Tool, silence: float | None = SILENCE) -> None:
        self._tool, self._silence = tool, silence

    def stream(self) -> AsyncIterator[bytes]:
        """What it sends; the error for which it did not send all of it."""
        return self._tool.output(self._silence)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A place in the guest where an archive is unpacked."""

    files: GuestFiles
    path: str
    archive: bool
    keep: bool

    async def feed(self, pieces: AsyncIterator[bytes]) -> Received:
        """Unpack it; what was made of it. Raises NoSuchPath, CopyFailed, CorruptArchive,
        DiskFull, WrongState."""
        first, held = await beginning(pieces)
        there, path = await self.files.look(self.path)
        landing, strip = arrival(first, path, there, archive=self.archive)
        try:
            return await self._unpack(landing, strip, held, pieces)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _unpack(
        self, landing: Landing, strip: int, held: bytes, pieces: AsyncIterator[bytes]
    ) -> Received:
        owners = ["keep"] if self.keep else []
        args = ("receive", landing.parent, landing.name, str(strip), *owners)
        return await self.files.fed(args, held, pieces)


@dataclass(frozen=True, slots=True)
class Storing:
    """A file in the guest that gets what is fed."""

    files: GuestFiles
    path: str
    mode: int

    async def feed(self, pieces: AsyncIterator[bytes]) -> Received:
        """Put it there. Raises NoSuchPath, CopyFailed, DiskFull, WrongState."""
        mode = "-1" if self.mode == KEEP else f"{self.mode:o}"
        try:
            return await self.files.fed(("store", self.path, mode), b"", pieces)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """The files of one instance whose guest runs. `own` are files that the host writes into it at
    its start: an image made of it has its image's in their place."""

    execute: Execute
    instance_id: str
    own: tuple[str, ...] = ()

    @asynccontextmanager
    async def working(self, *args: str) -> AsyncIterator[Tool]:
        """Our program in the guest, at the job `args`."""
        async with working(self.execute, self.instance_id, *args) as tool:
            yield tool

    async def look(self, path: str) -> tuple[Kind, str]:
        """What is at `path`, and what it leads to where it is a symbolic link."""
        async with self.working("look", path, "follow") as tool:
            answer = await tool.answer(_ANSWER)
        kind, _, found = os.fsdecode(answer).partition(" ")
        if kind not in set(Kind) or not found or "\0" in found:
            raise _odd()
        return Kind(kind), found

    @asynccontextmanager
    async def sending(self, path: str, *, follow: bool) -> AsyncIterator[Outgoing]:
        top = "." if is_contents(path) else top_of(os.path.abspath(path))
        rest = ["follow"] if follow else []
        async with self.working("send", path, top, *rest) as tool:
            yield Outgoing(tool)

    @asynccontextmanager
    async def receiving(self, path: str, *, archive: bool, keep: bool) -> AsyncIterator[Incoming]:
        yield Incoming(self, path, archive, keep)

    async def fed(
        self, args: tuple[str, ...], held: bytes, pieces: AsyncIterator[bytes]
    ) -> Received:
        """Have our program take what is held, and then the pieces; what it made of them."""
        loop = asyncio.get_running_loop()
        async with (
            self.working(*args) as tool,
            asyncio.timeout(None) as deadline,
            asyncio.TaskGroup() as group,
        ):

            async def send() -> None:
                await tool.send(held)
                async for piece in pieces:
                    await tool.send(piece)
                await tool.close_input()
                deadline.reschedule(loop.time() + SILENCE)

            sending = group.create_task(send())
            answer = await tool.answer(_ANSWER, within=None)
            sending.cancel()
        return _received(answer)

    @asynccontextmanager
    async def fetching(self, path: str) -> AsyncIterator[Outgoing]:
        async with self.working("fetch", path) as tool:
            yield Outgoing(tool)

    @asynccontextmanager
    async def storing(self, path: str, mode: int) -> AsyncIterator[Storing]:
        yield Storing(self, path, mode)

    @asynccontextmanager
    async def watching(self, path: str, *, recursive: bool) -> AsyncIterator[Outgoing]:
        async with self.working("watch", path, *(["recursive"] if recursive else [])) as tool:
            yield Outgoing(tool, silence=None)

    async def ask(self, question: Question) -> list[FileInfo]:
        async with self.working(*question.words()) as tool:
            answer = await tool.answer(_LISTING)
        return await asyncio.to_thread(file_info.of_bytes, answer)

    @asynccontextmanager
    async def exporting(self) -> AsyncIterator[Outgoing]:
        async with self.working("root", *self.own) as tool:
            yield Outgoing(tool)

    @contextmanager
    def producing(self) -> Iterator[GuestFiles]:
        yield self

    async def write(self, sink: int) -> SubletError | None:
        """Write the whole root to the descriptor as a tar stream (`squashfs.Source`)."""
        os.set_blocking(sink, False)
        try:
            async with self.exporting() as courier:
                async for piece in courier.stream():
                    await _write(sink, piece)
        except BrokenPipeError:
            return None
        except SubletError as error:
            return error
        return None


async def beginning(pieces: AsyncIterator[bytes]) -> tuple[Entry | None, bytes]:
    """The first entry of an archive, None where there is none, and what was read to see it."""
    held = b""
    async for piece in pieces:
        held += piece
        try:
            return Reader(_only(held)).next(), held
        except _MoreNeededError:
            pass
        if len(held) > _BEGINNING:
            raise CorruptArchive("The archive holds an extended header that is too large.")
    return Reader([held]).next(), held


class _MoreNeededError(Exception):
    """What has come until now is not enough."""


def _only(held: bytes) -> Iterator[bytes]:
    yield held
    raise _MoreNeededError


async def _write(sink: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(sink, data) :]
        except BlockingIOError:
            await ready(sink, write=True)


def _received(answer: bytes) -> Received:
    try:
        count, left_out = (int(word) for word in answer.split())
    except ValueError:
        raise _odd() from None
    return Received(count, left_out)


def _odd() -> CopyFailed:
    return CopyFailed("The machine's answer makes no sense.", hint="Look at it: sublet exec.")
