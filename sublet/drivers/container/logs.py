"""A container's log, as its supervisor writes it: `log`, and before it `log.1`, `log.2` ….

Each line: RFC 3339 time, `stdout` or `stderr`, `F` (a full line) or `P` (a part of
one), then the text (Kubernetes CRI logging format).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sublet.drivers.container.streams import STDERR, STDOUT

_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """What one stream wrote at one time (RFC 3339); `data` ends in a newline unless partial."""

    time: str
    stream: int
    data: bytes


def parse_line(line: bytes) -> Entry | None:
    """The entry of one line of the log, None if it is malformed."""
    fields = line.rstrip(b"\n").split(b" ", 3)
    if len(fields) < 4:
        return None
    stamp, stream, tag, text = fields
    data = text if tag == b"P" else text + b"\n"
    number = STDERR if stream == b"stderr" else STDOUT
    return Entry(stamp.decode(errors="replace"), number, data)


async def read(path: Path, following: Callable[[], bool]) -> AsyncIterator[Entry]:
    """All entries, and further ones as they are written while `following()` is true."""
    with ExitStack() as stack:
        files = await asyncio.to_thread(_open_all, path)
        for file in files:
            stack.callback(file.close)
        while True:
            more = following()
            # Asked before reading: what was written until then is read below.
            newer = await asyncio.to_thread(_rotated_since, path, files[-1]) if files else []
            for file in newer:
                stack.callback(file.close)
            files += newer
            while len(files) > 1:
                for entry in _entries(files[0]):
                    yield entry
                files.pop(0).close()
            for entry in _entries(files[0]) if files else ():
                yield entry
            if not more:
                return
            await asyncio.sleep(_POLL)
            files = files or await asyncio.to_thread(_open_all, path)


def _open_all(path: Path) -> list[BinaryIO]:
    """The files of the log, the oldest first. Opened from the newest on: what is rotated
    meanwhile is met again under its next name, and left out then; it leaves one gap at most."""
    found: list[BinaryIO] = []
    known: set[int] = set()
    gaps = 0
    for number in range(256):
        name = path.with_name(f"{path.name}.{number}") if number else path
        try:
            file = open(name, "rb")  # noqa: SIM115
        except FileNotFoundError:
            gaps += 1
            if gaps > 1:
                break
            continue
        inode = os.fstat(file.fileno()).st_ino
        if inode in known:
            file.close()
            continue
        known.add(inode)
        found.append(file)
    return found[::-1]


def _rotated_since(path: Path, last: BinaryIO) -> list[BinaryIO]:
    """The files that came after the one that was the newest, the oldest first."""
    inode = os.fstat(last.fileno()).st_ino
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            return []
    newer: list[BinaryIO] = []
    for file in _open_all(path)[::-1]:
        if os.fstat(file.fileno()).st_ino == inode:
            file.close()
            inode = -1
        elif inode >= 0:
            newer.append(file)
        else:
            file.close()
    return newer[::-1]


def _entries(file: BinaryIO) -> Iterator[Entry]:
    """The whole lines from where the file stands; it stays before one that is not whole yet."""
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)  # the only file of the log began anew
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        entry = parse_line(line)
        if entry:
            yield entry
