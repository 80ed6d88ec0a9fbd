"""Reading a tar archive from a stream: ustar, pax, GNU's long names and sparse files.

Whoever wrote it may be hostile: sizes are bounded before they are believed, nothing is kept
but the entry at hand, and an archive that ends early is an error, not a short archive.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from sublet.archive.entry import BLOCK, DIRECTORY, FILE, XATTR, Entry, Extent
from sublet.domain.errors import CorruptArchive

CHUNK = 1 << 18
MAX_EXTENSION, MAX_EXTENTS, MAX_SIZE = 4 << 20, 1 << 18, 1 << 62
_DATA_KINDS = (b"0", b"\0", b"7", b"S")
_KINDS = (*_DATA_KINDS, *(b"%d" % number for number in range(1, 7)))
_RECORD = re.compile(rb"(\d{1,8}) ")


class Source:
    """Exact reads from a stream that comes in pieces of any length."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def some(self, limit: int) -> bytes:
        """Up to `limit` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data

    def exactly(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            data = self.some(length - len(found))
            if not data:
                raise CorruptArchive("The archive ends too early.")
            found += data
        return bytes(found)


class Reader:
    """The members of an archive, one after the other."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._source = Source(pieces)
        self._left = 0
        self._extents: tuple[Extent, ...] = ()

    def next(self) -> Entry | None:
        """The next member, None after the last. What was not read of the one before is skipped."""
        self._skip(self._left)
        records: dict[str, bytes] = {}
        while True:
            block = self._source.exactly(BLOCK)
            if not any(block):
                while self._source.some(CHUNK):
                    pass
                return None
            _check(block)
            kind, size = block[156:157], _number(block[124:136])
            if kind == b"x":
                records |= _records(self._extension(size))
            elif kind == b"g":
                self._extension(size)
            elif kind in (b"L", b"K"):
                key = "path" if kind == b"L" else "linkpath"
                records[key] = self._extension(size).partition(b"\0")[0]
            else:
                return self._member(block, kind, records)

    def _member(self, block: bytes, kind: bytes, records: dict[str, bytes]) -> Entry:
        if kind not in _KINDS:
            raise CorruptArchive(f"The archive holds an entry of the unknown type {kind!r}.")
        name = records.get("path", _name(block))
        stored = _value(records, "size", _number(block[124:136]))
        size, extents = stored, None
        self._left = _round(stored) if kind in _DATA_KINDS else 0
        if kind == b"S":
            size = _number(block[483:495])
            extents = self._old_map(block)
        elif "GNU.sparse.major" in records:
            size = _value(records, "GNU.sparse.realsize", -1)
            name = records.get("GNU.sparse.name", name)
            extents = self._new_map(records)
        elif any(key.startswith("GNU.sparse") for key in records):
            raise CorruptArchive("The archive holds a sparse file of an old format.")
        if extents is not None:
            _check_extents(extents, size, stored)
        self._extents = extents if extents is not None else ((0, stored),)
        return Entry(
            name=os.fsdecode(name),
            kind=_kind(kind, name),
            mode=_number(block[100:108]) & 0o7777,
            uid=_value(records, "uid", _number(block[108:116])),
            gid=_value(records, "gid", _number(block[116:124])),
            size=size if kind in _DATA_KINDS else 0,
            mtime=_seconds(records, block),
            link=os.fsdecode(records.get("linkpath", block[157:257].partition(b"\0")[0])),
            device=(_number(block[329:337]), _number(block[337:345])),
            xattrs={
                key.removeprefix(XATTR): value
                for key, value in records.items()
                if key.startswith(XATTR)
            },
            extents=extents,
        )

    def data(self) -> Iterator[tuple[int, bytes]]:
        """The data of the member at hand: offsets and bytes."""
        for start, length in self._extents:
            offset, end = start, start + length
            while offset < end:
                piece = self._source.some(min(CHUNK, end - offset))
                if not piece:
                    raise CorruptArchive("The archive ends too early.")
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)
        self._extents = ()

    def _skip(self, count: int) -> None:
        while count:
            piece = self._source.some(min(CHUNK, count))
            if not piece:
                raise CorruptArchive("The archive ends too early.")
            count -= len(piece)
        self._left = 0

    def _extension(self, size: int) -> bytes:
        if size > MAX_EXTENSION:
            raise CorruptArchive("The archive holds an extended header that is too large.")
        return self._source.exactly(_round(size))[:size]

    def _old_map(self, block: bytes) -> tuple[Extent, ...]:
        """GNU's own format: 4 extents in the header, 21 in each block that follows."""
        found = _pairs(block[386:482])
        more = block[482]
        while more:
            if len(found) > MAX_EXTENTS:
                raise CorruptArchive("The archive holds a file with too many holes.")
            block = self._source.exactly(BLOCK)
            found += _pairs(block[:504])
            more = block[504]
        return tuple(found)

    def _new_map(self, records: dict[str, bytes]) -> tuple[Extent, ...]:
        """The pax format, version 1.0: decimal numbers, a line each, before the data."""
        if records["GNU.sparse.major"] != b"1":
            raise CorruptArchive("The archive holds a sparse file of an unknown format.")
        numbers = self._numbers()
        count = next(numbers)
        if count > MAX_EXTENTS:
            raise CorruptArchive("The archive holds a file with too many holes.")
        return tuple((next(numbers), next(numbers)) for _ in range(count))

    def _numbers(self) -> Iterator[int]:
        text = b""
        while True:
            while b"\n" not in text:
                if self._left < BLOCK or len(text) > BLOCK:
                    raise CorruptArchive("The archive holds a malformed sparse file.")
                text += self._source.exactly(BLOCK)
                self._left -= BLOCK
            line, _, text = text.partition(b"\n")
            yield _decimal(line)


def _check_extents(extents: tuple[Extent, ...], size: int, stored: int) -> None:
    position = 0
    for offset, length in extents:
        if offset < position or offset + length > size:
            raise CorruptArchive("The archive holds a malformed sparse file.")
        position = offset + length
    if sum(length for _, length in extents) > stored:
        raise CorruptArchive("The archive holds a malformed sparse file.")


def _kind(kind: bytes, name: bytes) -> str:
    if kind in _DATA_KINDS:
        return DIRECTORY if name.endswith(b"/") else FILE
    return kind.decode()


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pairs(data: bytes) -> list[Extent]:
    """Extents as offset and length of 12 bytes each, up to an empty one."""
    found = []
    for start in range(0, len(data) - 23, 24):
        if not data[start]:
            break
        middle = start + 12
        found.append((_number(data[start:middle]), _number(data[middle : middle + 12])))
    return found


def _records(data: bytes) -> dict[str, bytes]:
    found, position = {}, 0
    while position < len(data):
        match = _RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(data) or data[end - 1] != 0x0A:
            raise CorruptArchive("The archive holds a malformed pax record.")
        key, _, value = data[match.end() : end - 1].partition(b"=")
        found[os.fsdecode(key)] = value
        position = end
    return found


def _value(records: dict[str, bytes], key: str, default: int) -> int:
    return _decimal(records[key]) if key in records else default


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"\d{1,18}", text):
        raise CorruptArchive("The archive holds a malformed number.")
    return int(text)


def _seconds(records: dict[str, bytes], block: bytes) -> int:
    """Whole seconds, which may lie before 1970."""
    if "mtime" not in records:
        return _number(block[136:148])
    match = re.fullmatch(rb"(-?\d{1,12})(\.\d*)?", records["mtime"])
    if not match:
        raise CorruptArchive("The archive holds a malformed time.")
    return int(match[1])


def _number(field: bytes) -> int:
    """Octal text, or GNU's base 256 with the top bit set."""
    if field[:1] == b"\x80":
        value = int.from_bytes(field[1:])
    else:
        text = field.strip(b" \0").partition(b"\0")[0]
        if not re.fullmatch(rb"[0-7]*", text):
            raise CorruptArchive("The archive holds a malformed number.")
        value = int(text or b"0", 8)
    if value >= MAX_SIZE:
        raise CorruptArchive("The archive holds an impossible number.")
    return value


def _round(size: int) -> int:
    return size + -size % BLOCK


def _check(block: bytes) -> None:
    text = block[148:156].strip(b" \0")
    total = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
    if not re.fullmatch(rb"[0-7]+", text) or int(text, 8) != total:
        raise CorruptArchive("That is no tar archive, or it is damaged.")
