"""Packing: a directory, a tar stream, or a stranger's squashfs becomes our squashfs.

A directory that this host made is packed by mksquashfs as root. What a stranger made
is never unpacked on the host: a tar stream goes through `tarstream.strip` into
tar2sqfs, a stranger's squashfs through sqfs2tar into the same. Both run confined
(`confine`), and neither creates a file but its output. unsquashfs, confined and
unprivileged, could not create what it unpacks with its owners, device nodes and
capabilities; sqfs2tar writes them down in the stream without needing privileges.

zstd level 3: a 170 MB tree takes 1.0 s on 2 cores and gives 60.6 MB; level 9 takes
1.6 s for 56.7 MB, level 1 is no faster than 3.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from sublet.domain.errors import CorruptImage, DiskFull, ProcessFailed, SubletError
from sublet.drivers import run
from sublet.drivers.confine import NOBODY, confined, limit
from sublet.drivers.store import files
from sublet.image import tarstream

T = TypeVar("T")
LEVEL = 3
TIMEOUT = 3600
NEARLY_FULL = 1 << 20
_UNSEEN = re.compile("Cannot stat dir/file .* because No such file or directory")
"""What mksquashfs says of a name that is listed and not there."""
_MAGICS = {
    b"\x1f\x8b": ["gzip", "-dc"],
    b"\xfd7zXZ\0": ["xz", "-dc", "-T0", "-M", "1GiB"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"BZh": ["bzip2", "-dc"],
}


def directory_argv(tree: Path, output: Path, offset: int, created: int) -> list[str]:
    """The call of mksquashfs that packs `tree` into `output` from `offset` on.

    Without CAP_SYS_ADMIN, `trusted.*` attributes are invisible and so stay out.
    """
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
    clean = ["env", "--unset=SOURCE_DATE_EPOCH", "mksquashfs", str(tree), str(output)]
    how = ["-noappend", "-quiet", "-no-progress", "-comp", "zstd"]
    level = ["-Xcompression-level", str(LEVEL), "-offset", str(offset)]
    return [*without, *clean, *how, *level, "-mkfs-time", str(created)]


async def pack_directory(
    tree: Path,
    output: Path,
    *,
    offset: int,
    created: int,
    inside: Callable[[Sequence[str]], list[str]] = list,
) -> None:
    """Pack `tree`, with owners, modes, xattrs, links, devices and holes, into `output`.

    `inside` may put the call into other namespaces. Raises DiskFull, ProcessFailed.
    """
    argv = inside([*directory_argv(tree, output, offset, created), "-exit-on-error"])
    try:
        await run.run(argv, timeout=TIMEOUT)
    except ProcessFailed as error:
        if _UNSEEN.search(error.message) is None:
            raise
        await _pack_what_is_there(argv[:-1])


async def _pack_what_is_there(argv: list[str]) -> None:
    """Pack a tree that lists names which are not there: overlayfs does so with whiteouts of
    what is in no layer below. Every other complaint is an error as before."""
    problems: list[str] = []

    def heed(line: str) -> None:
        if _UNSEEN.match(line) is None:
            problems.append(line)

    result = await run.run(argv, check=False, timeout=TIMEOUT, on_line=heed)
    if result.code != 0 or problems:
        raise run.failure(argv, run.Result(result.code, b"", "\n".join(problems[:100])))


class Source(Protocol):
    """Whoever writes a tar archive."""

    async def write(self, sink: int) -> SubletError | None:
        """Write it to the descriptor; the error for which it is not all of it. That nobody reads
        to the end is none."""


@dataclass(frozen=True, slots=True)
class Producer:
    """A program that writes a tar archive to its standard output; `explain` makes an
    error of a result other than 0; `options` are those of `run.run`."""

    argv: Sequence[str]
    explain: Callable[[run.Result], SubletError]
    options: Mapping[str, Any] = field(default_factory=dict)

    async def write(self, sink: int) -> SubletError | None:
        result = await run.run(self.argv, stdout=sink, check=False, timeout=TIMEOUT, **self.options)
        if result.code in (0, -signal.SIGPIPE, 128 + signal.SIGPIPE):
            return None  # one that a full pipe's end ended is not the cause
        return self.explain(result)


async def pack_tar(source: BinaryIO, output: Path, *, offset: int) -> None:
    """Pack a (gzip, xz, zstd, bzip2 or un-) compressed tar archive, given as an open file.

    Raises CorruptImage for what is no sound archive, DiskFull.
    """
    magic = os.pread(source.fileno(), 6, 0)
    os.lseek(source.fileno(), 0, os.SEEK_SET)
    tool = next((tool for start, tool in _MAGICS.items() if magic.startswith(start)), None)
    if tool is None:
        await _pack(os.dup(source.fileno()), output, offset)
        return
    options = {"stdin": source.fileno(), "before_exec": limit}
    await pack_output(Producer(confined(tool), _unreadable, options), output, offset=offset)


async def repack(partition: Path, output: Path, *, offset: int) -> None:
    """Pack the stranger's squashfs in the file `partition` again.

    Raises CorruptImage where it cannot be read, DiskFull.
    """
    argv = confined(["sqfs2tar", "-r", ".", "/input"], readable={"/input": str(partition)})
    options = {"before_exec": limit}
    await pack_output(Producer(argv, _unreadable, options), output, offset=offset)


async def write_tar(partition: Path, sink: int) -> None:
    """Write what the squashfs in the file `partition` holds to the descriptor `sink`, as a tar
    archive. Raises ProcessFailed, DiskFull."""
    argv = confined(["sqfs2tar", "-r", ".", "/input"], readable={"/input": str(partition)})
    await run.run(argv, stdout=sink, before_exec=limit, timeout=TIMEOUT)


async def pack_output(producer: Source, output: Path, *, offset: int) -> None:
    """Pack the tar archive that somebody writes.

    Raises what the producer's `write` gives, CorruptImage, DiskFull.
    """
    reader, writer = os.pipe()

    async def produce() -> SubletError | None:
        try:
            return await producer.write(writer)
        finally:
            os.close(writer)

    producing = asyncio.ensure_future(produce())
    packing = asyncio.ensure_future(_pack(reader, output, offset, full=producing.cancel))
    problem: CorruptImage | None = None
    try:
        await asyncio.wait({packing})  # which a cancelled caller does not wait for
        await packing
    except CorruptImage as error:
        problem = error
    except BaseException:
        for task in (producing, packing):  # whoever reads waits for the end of what is written
            task.cancel()
        await asyncio.gather(producing, packing, return_exceptions=True)
        raise
    cause = await cancelling(producing)
    if cause:
        raise cause from problem
    if problem:
        raise problem


async def cancelling(task: asyncio.Future[T]) -> T:
    """The task's result; a cancelled caller takes the task with it and waits for its end."""
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _pack(
    source: int, output: Path, offset: int, full: Callable[[], object] = lambda: None
) -> None:
    """Filter and pack the plain tar archive read from the descriptor `source`, which is
    closed; `output` gets the squashfs from `offset` on. `full` is called when there is no room for
    it: whoever writes need not go on, and may not have begun."""
    plain = output.with_name(output.name + ".plain")
    reader, writer = os.pipe()
    filtering = asyncio.ensure_future(asyncio.to_thread(_filter, source, writer))
    try:
        try:
            plain.touch(0o600)
            os.chown(plain, NOBODY, NOBODY)
            argv = ["tar2sqfs", "-q", "-s", "-f", "-c", "zstd", "-X", f"level={LEVEL}", "/output"]
            result = await run.run(
                confined(argv, writable={"/output": str(plain)}),
                stdin=reader,
                check=False,
                timeout=TIMEOUT,
                before_exec=limit,
            )
            no_room = result.code != 0 and _is_full(plain, run.failure(argv, result))
            if no_room:
                full()
        finally:
            os.close(reader)
            problem = await asyncio.shield(filtering)
        if no_room:
            raise DiskFull("No space left on the host for the image.")
        if problem or result.code != 0:
            raise problem or _unreadable(result)
        await asyncio.to_thread(_place, plain, output, offset)
    finally:
        plain.unlink(missing_ok=True)


def _filter(source: int, sink: int) -> CorruptImage | None:
    """`tarstream.strip` between two descriptors, which are closed; the error, if any."""
    try:
        with os.fdopen(source, "rb", 1 << 20) as reader, os.fdopen(sink, "wb", 1 << 20) as writer:
            tarstream.strip(reader, writer)
    except BrokenPipeError:
        return None  # the packer ended first, and says why
    except CorruptImage as error:
        return error
    return None


def _is_full(plain: Path, failure: SubletError) -> bool:
    """Whether the packer failed for want of space, which tar2sqfs calls an I/O error."""
    left = os.statvfs(plain)
    return isinstance(failure, DiskFull) or left.f_bavail * left.f_frsize < NEARLY_FULL


def _place(plain: Path, output: Path, offset: int) -> None:
    with plain.open("rb") as reader, output.open("wb") as writer:
        files.copy(reader, writer, offset=offset)


def _unreadable(result: run.Result) -> CorruptImage:
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return CorruptImage(
        f"The image's files cannot be read: {lines[-1] if lines else 'damaged'}".rstrip(".") + "."
    )
