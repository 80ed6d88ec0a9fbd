"""A container's log file, as conmon writes it.

Each line: RFC 3339 time, `stdout` or `stderr`, `F` (a full line) or `P` (a part of
one), then the text (Kubernetes CRI logging format).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

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
    try:
        file = await asyncio.to_thread(open, path, "rb")
    except FileNotFoundError:
        return
    with file:
        partial = b""
        while True:
            more = following()
            # Asked before reading: what was written until then is read below.
            while line := file.readline():
                partial += line
                if not partial.endswith(b"\n"):
                    continue
                entry = parse_line(partial)
                partial = b""
                if entry:
                    yield entry
            if not more:
                return
            await asyncio.sleep(_POLL)
