"""Single files of an instance: what is asked about them, and what one is told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import CopyFailed, InvalidArgument

LIST_MOST = 100_000
"""Entries of a directory, and of those below it, that one listing may have."""

DEPTH_MOST = 64
"""Levels of directories that one listing may go down."""

KEEP = -1
"""In place of a mode: that of the file that is there, or 0644."""

_TEXT = re.compile(r"([fdlo]) (\d{1,20}) ([0-7]{1,5}) (-?\d{1,15}\.\d{9}) (/.*)", re.DOTALL)


class FileType(StrEnum):
    """What is at a path; `other` are FIFOs, sockets and devices."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


_TYPES = {kind.value[0]: kind for kind in FileType} | {"l": FileType.SYMLINK}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is at a path: `size` in bytes, `mode` its permission bits, `modified` in seconds since
    the epoch, `target` what a symbolic link says."""

    name: str
    path: str
    type: FileType
    size: int
    mode: int
    modified: float
    target: str = ""


class FileVerb(StrEnum):
    """What can be done with a path, other than reading and writing what is there."""

    STAT = "stat"
    LIST = "list"
    MAKE = "make"
    REMOVE = "remove"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class Question:
    """`stat` follows a link; `list` tells of what is in a directory, `depth` levels of it; `make`
    a directory and those above it; `remove` a file, or a directory with all that is in it;
    `rename` it to `to`, whose place a file there gives up."""

    verb: FileVerb
    path: str
    to: str = ""
    depth: int = 1

    def words(self) -> list[str]:
        """As the program that works on an instance's files is asked (guest/copy.c)."""
        more = {FileVerb.LIST: [str(self.depth)], FileVerb.RENAME: [self.to]}
        return [self.verb, self.path, *more.get(self.verb, [])]


def check_question(question: Question) -> None:
    """Raises InvalidArgument where it cannot be meant."""
    if question.verb in (FileVerb.REMOVE, FileVerb.RENAME) and question.path.strip("/.") == "":
        raise InvalidArgument(
            f"{question.path} is the instance's root.", hint="Name what is in it."
        )
    if not 1 <= question.depth <= DEPTH_MOST:
        raise InvalidArgument(f"{question.depth} is no depth from 1 to {DEPTH_MOST}.")


def of_bytes(data: bytes) -> list[FileInfo]:
    """All entries that an instance has told of. Raises CopyFailed where they make no sense."""
    texts = data.decode(errors="replace").split("\0")
    return list(parsed(texts[:-1]))


def parsed(texts: Iterable[str]) -> Iterator[FileInfo]:
    """Entries from their texts, two of each. Raises CopyFailed where they make no sense."""
    pairs = iter(texts)
    for first in pairs:
        match, target = _TEXT.fullmatch(first), next(pairs, None)
        if match is None or target is None:
            raise CopyFailed("The instance's list of its files makes no sense.")
        letter, size, mode, modified, path = match.groups()
        name = path.rstrip("/").rpartition("/")[2] or "/"
        kind = _TYPES[letter]
        yield FileInfo(name, path, kind, int(size), int(mode, 8), float(modified), target)
