"""Disks of VMs as backups keep them: without their holes.

`data` has all that is no hole, one part after the other, and `extents.json` where each belongs.
Where the file system can, both share their blocks with the disk, so that nothing is copied
(copy_file_range(2)). What a guest wrote is not looked at; what a repository gives back is checked.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sublet.domain.disks import MAX_DISK
from sublet.domain.errors import BackupFailed
from sublet.drivers import reflink
from sublet.drivers.descriptors import opened

DATA, EXTENTS = "data", "extents.json"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_MOST = 64 << 20
"""Bytes of the list of extents: millions of them."""


def pack(disk: Path) -> int:
    """Put the disk, which nobody changes, in its packed form beside it; it goes. Its size."""
    place, extents = disk.parent, []
    with opened(disk) as reader, opened(place / DATA, _NEW) as writer:
        size = os.fstat(reader).st_size
        at = 0
        for start, end in reflink.extents(reader):
            extents.append((start, end - start))
            _copy(reader, start, writer, at, end - start)
            at += end - start
    text = json.dumps({"size": size, "extents": extents}, separators=(",", ":"))
    with opened(place / EXTENTS, _NEW) as fd:
        os.write(fd, text.encode()) if len(text) < _MOST else _too_many()
    disk.unlink()
    return size


def unpack(place: Path, disk: Path) -> int:
    """Write the disk that is packed in `place` to a new file; its size. Raises BackupFailed where
    the two do not belong together."""
    size, extents = _extents(place / EXTENTS)
    with opened(place / DATA, os.O_RDONLY | os.O_NOFOLLOW) as reader, opened(disk, _NEW) as writer:
        if sum(length for _, length in extents) != os.fstat(reader).st_size:
            raise BackupFailed("The disk in the backup is not whole.")
        os.ftruncate(writer, size)
        at = 0
        for start, length in extents:
            _copy(reader, at, writer, start, length)
            at += length
        os.fsync(writer)
    return size


def _extents(file: Path) -> tuple[int, list[tuple[int, int]]]:
    """Size and extents, in order and within it. Raises BackupFailed."""
    with opened(file, os.O_RDONLY | os.O_NOFOLLOW) as fd:
        text = os.read(fd, _MOST) if os.fstat(fd).st_size < _MOST else b""
    try:
        told: Any = json.loads(text)
        size, extents = int(told["size"]), [(int(a), int(b)) for a, b in told["extents"]]
    except (ValueError, TypeError, KeyError):
        raise BackupFailed("The backup does not say how its disk is laid out.") from None
    end = 0
    for start, length in extents:
        if start < end or length <= 0:
            raise BackupFailed("The parts of the disk in the backup overlap.")
        end = start + length
    if not end <= size <= MAX_DISK:
        raise BackupFailed("The disk in the backup is larger than it says, or than may be.")
    return size, extents


def _copy(reader: int, source: int, writer: int, target: int, length: int) -> None:
    while length:
        done = os.copy_file_range(reader, writer, length, source, target)
        if not done:
            raise BackupFailed("A disk became shorter while it was copied.")
        source, target, length = source + done, target + done, length - done


def _too_many() -> None:
    raise BackupFailed("The disk is in too many parts to be packed.")
