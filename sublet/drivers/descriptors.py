"""File descriptors: open for as long as a block lasts, and waited for."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def opened(path: Path | str, flags: int = os.O_RDONLY) -> AbstractContextManager[int]:
    """A descriptor of what is at `path`, until the block ends; a new file is its owner's alone."""
    return closing(os.open(path, flags | os.O_CLOEXEC, 0o600))


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """The descriptor, closed when the block ends."""
    try:
        yield fd
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Put the file's data, or the directory's entries, on the disk (fsync(2))."""
    with opened(path) as fd:
        os.fsync(fd)


def connected(directory: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    """A connection to the socket `name` in the directory, which does not block.

    By way of a descriptor of it, so that it may be as deep as it likes (unix(7)). Raises OSError
    where nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX, kind)
    connection.setblocking(False)
    try:
        with opened(directory, os.O_PATH | os.O_DIRECTORY) as fd:
            connection.connect(f"/proc/self/fd/{fd}/{name}")
    except BaseException:
        connection.close()
        raise
    return connection


async def ready(fd: int, *, write: bool = False) -> None:
    """Return when the descriptor can be read from, or written to."""
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
