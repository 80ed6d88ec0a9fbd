"""Copies into and out of a container's root, by programs that work inside it: single files by
`inside/main.c`, archives by inside.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from sublet.archive.transfer import Received
from sublet.domain import file_info
from sublet.domain.errors import SubletError, WrongState, from_dict
from sublet.domain.file_info import KEEP, FileInfo, Question
from sublet.drivers import complaints, processes, run
from sublet.drivers.container import difference, inside
from sublet.drivers.container.difference import Layers
from sublet.drivers.container.inside import Job
from sublet.drivers.container.places import Places
from sublet.drivers.squashfs import Producer

_PROGRAM = run.HELPER.with_name("sublet-inside")
_CHUNK = 1 << 18
_PATIENCE = 5.0
"""Seconds in which the program may tidy up, when its input has ended too early."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where to go in: the container of the process `pid`, with its mounts, or (0) the root that
    is mounted for an instance that does not run."""

    at: Places
    pid: int = 0
    started: int = 0

    @asynccontextmanager
    async def sending(self, path: str, *, follow: bool) -> AsyncIterator[Courier]:
        """Have the file or directory at `path` sent."""
        job = Job("send", path, -1, -1, -1, follow=follow)
        async with _working(self, job, stdin=asyncio.subprocess.DEVNULL) as courier:
            yield courier

    @asynccontextmanager
    async def receiving(self, path: str, *, archive: bool, keep: bool) -> AsyncIterator[Courier]:
        """Have what is fed unpacked at `path`; `archive`, `keep` as of `Job`."""
        job = Job("receive", path, -1, -1, -1, archive=archive, keep=keep)
        async with _working(self, job, stdin=asyncio.subprocess.PIPE) as courier:
            yield courier

    @asynccontextmanager
    async def fetching(self, path: str) -> AsyncIterator[Courier]:
        """Have what the file at `path` holds sent."""
        async with _asked(self, "fetch", path) as courier:
            yield courier

    @asynccontextmanager
    async def storing(self, path: str, mode: int) -> AsyncIterator[Courier]:
        """Have what is fed put into the file at `path`."""
        text = "-1" if mode == KEEP else f"{mode:o}"
        async with _asked(self, "store", path, text, stdin=asyncio.subprocess.PIPE) as courier:
            yield courier

    @asynccontextmanager
    async def watching(self, path: str, *, recursive: bool) -> AsyncIterator[Courier]:
        """Have what happens at `path` told."""
        async with _asked(self, "watch", path, *(["recursive"] if recursive else [])) as courier:
            yield courier

    async def ask(self, question: Question) -> list[FileInfo]:
        """Do what is asked; what is told of it."""
        async with _asked(self, *question.words()) as courier:
            pieces = [piece async for piece in courier.stream()]
        return await asyncio.to_thread(file_info.of_bytes, b"".join(pieces))

    @asynccontextmanager
    async def exporting(self) -> AsyncIterator[Courier]:
        """Have the whole root sent, without what is mounted in it."""
        async with replace(self, pid=0).sending("/.", follow=False) as courier:
            yield courier

    @contextmanager
    def producing(self) -> Iterator[Producer]:
        """What writes the whole root to a packer, as long as the block lasts."""
        with _doors(replace(self, pid=0)) as (user, mount, root):
            job = Job("send", "/.", user, mount, root)
            passed = tuple(fd for fd in (user, mount, root) if fd >= 0)

            def explain(result: run.Result) -> SubletError:
                return _error(result.code, result.stderr.encode())

            yield Producer(inside.argv(job), explain, {"pass_fds": passed})


class Courier:
    """The program at its work."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self._process, self._output, self._pipe = process, output, pipe
        self._closing = False

    async def stream(self) -> AsyncIterator[bytes]:
        """The archive that it sends; the error for which it did not send all of it."""
        while chunk := await self._output.read(_CHUNK):
            yield chunk
        await self._ended()

    async def feed(self, pieces: AsyncIterator[bytes]) -> Received:
        """Have it unpack an archive; what it made of it."""
        process = self._process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            async for piece in pieces:
                process.stdin.write(piece)
                await process.stdin.drain()
        cut = self._closing
        process.stdin.close()
        answer = await self._output.read()
        await self._ended()
        if cut:  # it took the end of what had come for the end of all
            raise WrongState("The instance has ended meanwhile.", hint="Try again.")
        made, left_out = answer.split()
        return Received(int(made), int(left_out))

    async def _ended(self) -> None:
        assert self._process.stderr is not None
        complaint = await self._process.stderr.read(_CHUNK)
        code = await self._process.wait()
        if code:
            raise _error(code, complaint)

    async def close(self) -> None:
        """End it; before, one that unpacks may remove the file that is incomplete."""
        self._closing = True
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _PATIENCE)
        self._pipe.close()
        await run.end(self._process)


def _error(code: int, complaint: bytes) -> SubletError:
    """What a program said was wrong: those in Python say it in JSON."""
    with contextlib.suppress(ValueError, IndexError):
        return from_dict(json.loads(complaint.splitlines()[-1]))
    result = run.Result(code, b"", complaint.decode(errors="replace"))
    return complaints.told(complaint) or run.failure(["sublet-inside"], result)


@asynccontextmanager
async def comparing(layers: Layers) -> AsyncIterator[Courier]:
    """Have the changes of a writable layer sent, one JSON object a line."""
    async with _started(difference.argv(layers), (), asyncio.subprocess.DEVNULL) as courier:
        yield courier


@asynccontextmanager
async def _working(entrance: Entrance, job: Job, *, stdin: int) -> AsyncIterator[Courier]:
    with contextlib.ExitStack() as doors:
        user, mount, root = doors.enter_context(_doors(entrance))
        argv = inside.argv(replace(job, user=user, mount=mount, root=root))
        passed = tuple(fd for fd in (user, mount, root) if fd >= 0)
        async with _started(argv, passed, stdin) as courier:
            doors.close()
            yield courier


@asynccontextmanager
async def _asked(
    entrance: Entrance, *words: str, stdin: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[Courier]:
    """The program for single files at `words`. It sees to its own end with the daemon's, so that
    the daemon need not be copied for it (vfork(2))."""
    with contextlib.ExitStack() as doors:
        opened = doors.enter_context(_doors(entrance))
        argv = [str(_PROGRAM), str(os.getpid()), *map(str, opened), *words]
        passed = tuple(fd for fd in opened if fd >= 0)
        async with _started(argv, passed, stdin, survive=True) as courier:
            doors.close()
            yield courier


@asynccontextmanager
async def _started(
    argv: list[str], passed: tuple[int, ...], stdin: int, *, survive: bool = False
) -> AsyncIterator[Courier]:
    reader, writer = os.pipe()
    try:
        process = await run.spawn(
            argv,
            survive=survive,
            pass_fds=passed,
            stdin=stdin,
            stdout=writer,
            stderr=asyncio.subprocess.PIPE,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    courier = Courier(process, *await _connected(reader))
    try:
        yield courier
    finally:
        await asyncio.shield(courier.close())


async def _connected(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """The reading end of a pipe of our own: asyncio's for a program cannot be closed, and waits
    for a reader that has stalled."""
    stream = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb")
    )
    return stream, pipe


@contextmanager
def _doors(entrance: Entrance) -> Iterator[tuple[int, int, int]]:
    """Descriptors of user namespace, mount namespace and root; -1 for what is not used."""
    with contextlib.ExitStack() as stack:

        def opened(path: str, flags: int = os.O_RDONLY) -> int:
            fd = os.open(path, flags | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        at, pid = entrance.at, entrance.pid
        try:
            user = opened(str(at.user_namespace))
            if not pid:
                yield user, -1, opened(str(at.rootfs), os.O_PATH | os.O_DIRECTORY)
                return
            mount = opened(f"/proc/{pid}/ns/mnt")
        except FileNotFoundError as error:
            raise WrongState("The instance has ended meanwhile.", hint="Try again.") from error
        if not processes.alive(pid, entrance.started):
            raise WrongState("The instance has ended meanwhile.", hint="Try again.")
        yield user, mount, -1
