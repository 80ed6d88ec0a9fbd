"""Copies of trees that share blocks where the file system can, also of a tree in use.

One in use is copied in two passes. The first, by cp(1), takes as long as it takes while the
tree goes on changing. Then its writers are paused, and only what has changed since the first
pass began is copied again: it is found by the time of its last change (ctime), which nobody
can set, so the pause is short however large the tree is. What a process writes through a
memory map is noticed too: all was written back at the beginning, and a page that is written
back is write-protected, so that its next change is noted as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sublet.domain.errors import DiskFull, ProcessFailed
from sublet.drivers import confine, linux, run, trace
from sublet.drivers.descriptors import closing, opened
from sublet.drivers.pool import can_clone, clone

MARGIN = 0.05
"""Seconds by which a change may be dated back: file times come from a clock of 4 to 10 ms."""

_CP = ["cp", "--recursive", "--no-dereference", "--reflink=auto", "--sparse=auto"]
_KEPT = ["--preserve=mode,ownership,timestamps,links,xattr"]

Pause = Callable[[], AbstractAsyncContextManager[None]]


async def copy(source: Path | int, target: Path) -> None:
    """Copy a tree (a path, or an open directory) that nobody changes to `target`, which is new.

    Owners, modes, times, extended attributes, hard links, holes and special files are kept.
    Raises DiskFull, ProcessFailed.
    """
    target.mkdir(mode=0o700)
    place = f"/proc/self/fd/{source}" if isinstance(source, int) else str(source)
    fds = (source,) if isinstance(source, int) else ()
    await run.run([*_CP, *_KEPT, "--", f"{place}/.", str(target)], pass_fds=fds)


async def copy_in_use(
    pairs: Sequence[tuple[Path, Path]], pause: Pause, also: Callable[[], Awaitable[None]]
) -> None:
    """Copy trees as they are at the same moment of a pause, in which `also` is done as well."""
    start, clock = time.time() - MARGIN, time.time() - time.monotonic()
    with trace.step("first pass"):
        await _together(_first_pass(source, target) for source, target in pairs)
        await _together(_written_back(source, start) for source, _ in pairs)
    async with pause():
        await also()
        shift = time.time() - time.monotonic() - clock  # somebody set the clock
        since = start + min(0.0, shift)
        await _together(_second_pass(source, target, since) for source, target in pairs)


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at the same time; the first failure is raised when all have ended."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _written_back(source: Path, since: float) -> None:
    changed = await _changed(source, since)
    await asyncio.to_thread(_write_back, source, changed)


async def _second_pass(source: Path, target: Path, since: float) -> None:
    changed = await _changed(source, since)
    await asyncio.to_thread(Update(source, target).apply, changed)


async def _first_pass(source: Path, target: Path) -> None:
    """Copy what goes on changing, in a cage: its owner may put links in the way of cp."""
    if not can_clone(target.parent):  # cloning itself writes back what it clones
        await run.run(["sync", "--file-system", str(source)])
    target.mkdir(mode=0o700)
    argv = [*_CP, *_KEPT, "--", "/source/.", "/target"]
    caged = confine.caged(argv, {"/source": str(source), "/target": str(target)})
    result = await run.run(caged, check=False)
    failure = run.failure(argv, result) if result.code else None
    if isinstance(failure, DiskFull):
        raise failure  # all else is what vanished meanwhile; the second pass will tell


async def _changed(source: Path, since: float) -> list[str]:
    """What of the tree has changed since then, a directory before what is in it."""
    argv = ["find", ".", "-newerct", f"@{since:.6f}", "-print0"]
    found = await run.run(argv, cwd=source, check=False)  # what vanishes meanwhile is no error
    return [os.fsdecode(path) for path in found.stdout.split(b"\0") if path]


def _write_back(source: Path, changed: Sequence[str]) -> None:
    """Put changed files on the disk now, so that cloning them in the pause need not."""
    resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS
    with opened(source, os.O_PATH | os.O_DIRECTORY) as root:
        for path in changed:
            with contextlib.suppress(OSError):
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
                with closing(linux.openat2(root, path, flags, resolve=resolve)) as fd:
                    if stat.S_ISREG(os.fstat(fd).st_mode):
                        os.fsync(fd)


class Update:
    """Makes a copy equal to its source in what has changed: paths relative to both."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = str(source), str(target)
        self._linked: dict[int, str] = {}
        self._done: set[str] = set()

    def apply(self, changed: Sequence[str]) -> None:
        """Copy again what has changed; `changed` has every directory before what is in it."""
        directories = []
        for path in changed:
            status = os.lstat(f"{self._source}/{path}")
            if stat.S_ISDIR(status.st_mode):
                self._directory(path)
                directories.append(path)
            else:
                self._replace(path, status)
        for path in reversed(directories):  # their times last
            self._attributes(path, os.lstat(f"{self._source}/{path}"))

    def _directory(self, path: str) -> None:
        """What is not in the source goes, what is not in the copy comes."""
        target = f"{self._target}/{path}"
        if not _is_directory(target):
            _remove(target)
            os.mkdir(target, 0o700)
        here, there = set(os.listdir(f"{self._source}/{path}")), set(os.listdir(target))
        for name in there - here:
            _remove(f"{target}/{name}")
        for name in here - there:
            self._tree(f"{path}/{name}")

    def _tree(self, path: str) -> None:
        """What came here whole, with all that is in it: it may be older than the first pass."""
        status = os.lstat(f"{self._source}/{path}")
        if stat.S_ISDIR(status.st_mode):
            self._directory(path)
            self._attributes(path, status)
        else:
            self._replace(path, status)

    def _replace(self, path: str, status: os.stat_result) -> None:
        if path in self._done:
            return  # it came with its directory
        self._done.add(path)
        source, target = f"{self._source}/{path}", f"{self._target}/{path}"
        _remove(target)
        if status.st_nlink > 1:
            first = self._linked.setdefault(status.st_ino, target)
            if first != target:
                os.link(first, target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            copy_file(source, target)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        else:
            os.mknod(target, stat.S_IFMT(status.st_mode), status.st_rdev)
        self._attributes(path, status)

    def _attributes(self, path: str, status: os.stat_result) -> None:
        source, target = f"{self._source}/{path}", f"{self._target}/{path}"
        os.lchown(target, status.st_uid, status.st_gid)
        link = stat.S_ISLNK(status.st_mode)
        if not link:
            os.chmod(target, stat.S_IMODE(status.st_mode))
        wanted = set(os.listxattr(source, follow_symlinks=False))
        for name in set(os.listxattr(target, follow_symlinks=False)) - wanted:
            os.removexattr(target, name, follow_symlinks=False)
        for name in wanted:  # after chown, which drops capabilities
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_file(source: Path | str, target: Path | str) -> None:
    """Copy one file to `target`, which is new and its owner's alone: shared blocks where the
    file system can, else what is no hole."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(source, os.O_RDONLY | os.O_NOFOLLOW) as reader, opened(target, flags) as writer:
        if not clone(reader, writer):
            copy_data(reader, writer)


def copy_data(reader: int, writer: int) -> None:
    """Copy what is no hole (lseek(2), SEEK_DATA)."""
    os.ftruncate(writer, os.fstat(reader).st_size)
    for start, end in extents(reader):
        os.lseek(writer, start, os.SEEK_SET)
        os.lseek(reader, start, os.SEEK_SET)
        while start < end:
            done = os.copy_file_range(reader, writer, end - start)
            if not done:
                raise ProcessFailed("A file became shorter while it was copied.")
            start += done


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes: start and end of each (lseek(2), SEEK_DATA)."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole to the end
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
