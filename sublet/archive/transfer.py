"""Both ends of a copy: what is sent as a tar stream, and where it lands (domain/copying.py)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sublet.archive.entry import DIRECTORY, Entry
from sublet.archive.failures import explained, special
from sublet.archive.making import Rules
from sublet.archive.pack import Options, pack
from sublet.archive.place import kind_at, located, target
from sublet.archive.reader import Reader
from sublet.archive.unpack import Unpacker
from sublet.domain.copying import Kind, Landing, is_contents, landing, top_of
from sublet.domain.errors import CopyFailed, CorruptArchive

SENT = 1 << 17
"""Bytes that are gathered before they are sent."""


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived: entries that were made, and devices that were left out."""

    count: int
    left_out: int


def send(path: str, *, follow: bool, options: Options | None = None) -> Iterator[bytes]:
    """The file or directory at `path` as a tar stream that begins with it.

    A symbolic link goes as it is, unless `follow`. Raises NoSuchPath, CopyFailed.
    """
    with located(path, follow=follow) as (parent, name):
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise special(path)
        top = "." if is_contents(path) else top_of(os.path.abspath(path))
        yield from gathered(pack(parent, name, top, options))


def receive(pieces: Iterable[bytes], path: str, rules: Rules, *, archive: bool) -> Received:
    """Unpack what `send` sent, so that it lands at `path` as Docker's rules say; with
    `archive`, any tar stream, into the directory `path`.

    Raises NoSuchPath, CopyFailed, CorruptArchive, DiskFull.
    """
    reader = Reader(pieces)
    first = reader.next()
    try:
        path = target(path)
        place, strip = arrival(first, path, kind_at(path), archive=archive)
        root = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explained(error, path) from error
    prefix = [place.name] if place.name else []
    unpacker = Unpacker(root, rules, shown=place.parent, prefix=prefix, strip=strip)
    try:
        unpacker.run(reader, first)
    finally:
        os.close(root)
    return Received(unpacker.count, unpacker.left_out)


def arrival(first: Entry | None, path: str, there: Kind, *, archive: bool) -> tuple[Landing, int]:
    """Where an archive that begins with `first` lands when it is copied to `path`, where `there`
    is, and how many components of its names the landing's name stands for.

    Raises NoSuchPath, CopyFailed, CorruptArchive.
    """
    if archive:
        if there is not Kind.DIRECTORY:
            raise CopyFailed(f"{path} is no directory, as a tar stream needs one.")
        return Landing(path, ""), 0
    if first is None:
        raise CorruptArchive("The archive is empty.")
    top = first.name.strip("/").partition("/")[0]
    kind = Kind.DIRECTORY if first.kind == DIRECTORY else Kind.FILE
    return landing(top, kind, path, there), 0 if top == "." else 1


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces."""
    kept = bytearray()
    for piece in pieces:
        kept += piece
        if len(kept) >= SENT:
            yield bytes(kept)
            kept.clear()
    if kept:
        yield bytes(kept)
