"""One member of a tar archive, and the bytes that describe it.

Written is the pax format of POSIX.1-2001 (pax(1), "pax Interchange Format"), with GNU tar's
records for sparse files (version 1.0) and SCHILY.xattr for extended attributes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, HARD_LINK, LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0123456"
XATTR = "SCHILY.xattr."
_OCTAL_LIMITS = {8: 8**7, 12: 8**11}
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: LINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}

Extent = tuple[int, int]
"""Where data lies in a file, and how many bytes; the rest is holes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A member: `size` as the file shows it, `mtime` in whole seconds since the epoch, names
    as the operating system gives them (PEP 383). `extents` None: no holes."""

    name: str
    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    extents: tuple[Extent, ...] | None = None


def entry_of(name: str, status: os.stat_result) -> Entry | None:
    """The entry for a file with this status; None for a socket, which no archive can hold."""
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return Entry(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == FILE else 0,
        mtime=int(status.st_mtime),
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
    )


def sparse_map(extents: tuple[Extent, ...]) -> bytes:
    """What precedes the data of a sparse file, padded. GNU tar ends a file where its last extent
    does, so a hole at the end takes an empty one."""
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    return padded(b"".join(b"%d\n" % number for number in numbers))


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(entry: Entry) -> bytes:
    """The blocks that precede the entry's data; for a sparse file with its map."""
    records = {f"{XATTR}{key}": value for key, value in entry.xattrs.items()}
    name, link = os.fsencode(entry.name), os.fsencode(entry.link)
    stored, after = entry.size, b""
    if entry.kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    if entry.extents is not None:
        after = sparse_map(entry.extents)
        stored = len(after) + sum(length for _, length in entry.extents)
        records |= {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.name": name}
        records["GNU.sparse.realsize"] = b"%d" % entry.size
        name = b"GNUSparseFile/" + name[-64:].rpartition(b"/")[2]
    if len(name) > 100:
        records["path"] = name
    if len(link) > 100:
        records["linkpath"] = link
    for key, number, width in (
        *(("uid", entry.uid, 8), ("gid", entry.gid, 8)),
        *(("size", stored, 12), ("mtime", entry.mtime, 12)),
    ):
        if not 0 <= number < _OCTAL_LIMITS[width]:
            records[key] = b"%d" % number
    block = _ustar(entry, name, link, stored)
    return _extension(records) + block + after


def _extension(records: Mapping[str, bytes]) -> bytes:
    """A pax header that holds the records; nothing for none."""
    if not records:
        return b""
    data = b"".join(_record(os.fsencode(key), value) for key, value in records.items())
    return _block(b"PaxHeader", b"x", b"0000644", len(data)) + padded(data)


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(entry: Entry, name: bytes, link: bytes, stored: int) -> bytes:
    return _block(
        name,
        entry.kind.encode(),
        b"%07o" % (entry.mode & 0o7777),
        stored if entry.kind == FILE else 0,
        ids=(entry.uid, entry.gid),
        mtime=entry.mtime,
        link=link,
        device=entry.device if entry.kind in (CHARACTER, BLOCK_DEVICE) else (0, 0),
    )


def _block(
    name: bytes,
    kind: bytes,
    mode: bytes,
    size: int,
    *,
    ids: tuple[int, int] = (0, 0),
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One ustar header; a number that does not fit is zero, and stands in a record."""

    def octal(number: int, width: int) -> bytes:
        fits = 0 <= number < _OCTAL_LIMITS[width]
        return b"%0*o\0" % (width - 1, number if fits else 0)

    block = bytearray(
        name[:100].ljust(100, b"\0")
        + mode
        + b"\0"
        + octal(ids[0], 8)
        + octal(ids[1], 8)
        + octal(size, 12)
        + octal(mtime, 12)
        + b" " * 8
        + kind
        + link[:100].ljust(100, b"\0")
        + b"ustar\x0000".ljust(8 + 64, b"\0")
        + octal(device[0], 8)
        + octal(device[1], 8)
        + bytes(167)
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
