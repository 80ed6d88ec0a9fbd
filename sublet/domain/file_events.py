"""What happens to the files of an instance, as somebody who watches a directory is told it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import CopyFailed

WATCHES_MOST = 16
"""Watches that an instance may have at one time."""

DIRECTORIES_MOST = 8192
"""Directories that one watch may be of."""

TEXT_MOST = 1 << 16
"""Bytes of one event: what an instance says is not believed to end."""


class FileChange(StrEnum):
    """What happened. `lost`: so much that not all of it could be told."""

    READY = "ready"
    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    MOVED = "moved"
    LOST = "lost"


_KNOWN = frozenset(FileChange)


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to `path`; when it was moved, `to` is where it is now."""

    type: FileChange
    path: str
    to: str = ""


class Events:
    """Cuts what comes out of an instance into events."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[FileEvent]:
        """Take what has come; the events that it completes. Raises CopyFailed where it makes no
        sense."""
        *whole, self._held = (self._held + data).split(b"\0")
        rest = len(whole) % 3
        if rest:
            self._held = b"\0".join([*whole[-rest:], self._held])
            whole = whole[:-rest]
        if len(self._held) > TEXT_MOST:
            raise _odd()
        words = [word.decode(errors="replace") for word in whole]
        triples = zip(words[::3], words[1::3], words[2::3], strict=True)
        return [_event(*triple) for triple in triples]


def lines(events: Iterable[FileEvent]) -> bytes:
    """The events as JSON, one a line."""
    rows = ({"type": each.type, "path": each.path, "to": each.to} for each in events)
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _event(change: str, path: str, to: str) -> FileEvent:
    if change not in _KNOWN or not path.startswith("/"):
        raise _odd()
    return FileEvent(FileChange(change), path, to)


def _odd() -> CopyFailed:
    return CopyFailed("What the instance tells of its files makes no sense.")
