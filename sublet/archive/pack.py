"""A file or directory as a tar stream, read by somebody who trusts nothing that is in it.

Names are resolved one component at a time below open directories. Only what is a regular file
when it is open is read: a FIFO or a device is described, not waited for (CVE-2024-9676).
Sockets are left out. Names come in order, so that the same files give the same stream.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sublet.archive.directories import Way
from sublet.archive.entry import (
    BLOCK,
    DIRECTORY,
    END,
    FILE,
    HARD_LINK,
    LINK,
    Entry,
    Extent,
    entry_of,
    header,
)
from sublet.archive.failures import explained

CHUNK = 1 << 18
_IDS, _NOBODY = 1 << 16, (1 << 16) - 2
MAX_EXTENTS, MAX_LINKS, MAX_NAME = 1 << 14, 1 << 18, 1 << 18
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Options:
    """`xattrs`: user.* and file capabilities come along. `closed`: directories (device and
    inode) whose contents stay out. `base`: taken from every owner's ids; what is no id of an
    instance then is nobody's."""

    xattrs: bool = False
    closed: frozenset[tuple[int, int]] = frozenset()
    base: int = 0


@dataclass(slots=True)
class _Packer:
    options: Options
    links: dict[tuple[int, int], str] = field(default_factory=dict)

    def member(self, parent: int, name: str, full: str) -> Iterator[bytes]:
        """The entry of one file, and its data; nothing where it is gone meanwhile."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        entry = self._entry(full, status)
        if entry is None:
            return
        known = self._known(status, full)
        if known:
            yield header(replace(entry, kind=HARD_LINK, link=known, size=0))
        elif entry.kind == FILE:
            yield from self._file(parent, name, full)
        elif entry.kind == LINK:
            yield header(replace(entry, link=os.readlink(name, dir_fd=parent)))
        elif entry.kind == DIRECTORY:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                yield header(replace(entry, xattrs=self._xattrs(fd)))
            finally:
                os.close(fd)
        else:
            yield header(entry)

    def _entry(self, full: str, status: os.stat_result) -> Entry | None:
        entry = entry_of(full, status)
        if entry is None or not self.options.base:
            return entry
        ids = (entry.uid - self.options.base, entry.gid - self.options.base)
        uid, gid = (number if 0 <= number < _IDS else _NOBODY for number in ids)
        return replace(entry, uid=uid, gid=gid)

    def _known(self, status: os.stat_result, full: str) -> str:
        """The name under which a file with several names has been packed already."""
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return ""
        key = (status.st_dev, status.st_ino)
        if key not in self.links and len(self.links) < MAX_LINKS:
            self.links[key] = full
            return ""
        return self.links.get(key, "")

    def _file(self, parent: int, name: str, full: str) -> Iterator[bytes]:
        fd = os.open(name, _READ, dir_fd=parent)
        try:
            entry = self._entry(full, os.fstat(fd))
            if entry is None or entry.kind != FILE:
                return  # it was another kind of file a moment ago
            entry = replace(entry, extents=_extents(fd, entry.size), xattrs=self._xattrs(fd))
            yield header(entry)
            extents = ((0, entry.size),) if entry.extents is None else entry.extents
            for extent in extents:
                yield from _data(fd, extent)
            yield bytes(-sum(length for _, length in extents) % BLOCK)
        finally:
            os.close(fd)

    def _xattrs(self, fd: int) -> dict[str, bytes]:
        if not self.options.xattrs:
            return {}
        found: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # the file system has none
            for key in sorted(os.listxattr(fd)):
                if key.startswith("user.") or key == "security.capability":
                    with contextlib.suppress(OSError):  # or this one is gone
                        found[key] = os.getxattr(fd, key)
        return found


def pack(parent: int, name: str, top: str, options: Options | None = None) -> Iterator[bytes]:
    """`name` in the directory `parent`, and all that is in it, as a tar stream in which it is
    called `top`; `.` for the directory itself.

    Raises CopyFailed where something cannot be read.
    """
    packer = _Packer(options or Options())
    try:
        yield from packer.member(parent, name, top)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            root = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                yield from _below(packer, root, top)
            finally:
                os.close(root)
    except OSError as error:
        raise explained(error, top) from error
    yield END


def pack_each(
    members: Iterable[tuple[int, str, str]], options: Options | None = None
) -> Iterator[bytes]:
    """Single files as a tar stream, of directories the entry alone: each by an open directory that
    has it, its name there, and what it is called in the stream. What is gone is left out.

    Raises CopyFailed where something cannot be read.
    """
    packer = _Packer(options or Options())
    for parent, name, full in members:
        try:
            yield from packer.member(parent, name, full)
        except OSError as error:
            if error.errno not in _GONE:
                raise explained(error, full) from error
    yield END


def _below(packer: _Packer, root: int, top: str) -> Iterator[bytes]:
    """The contents of an open directory, without recursion: its depth is a stranger's choice."""
    way, levels, prefix = Way(root), [_names(root, packer.options)], f"{top}/"
    try:
        while levels:
            name = next(levels[-1], None)
            if name is None:
                levels.pop()
                if levels:
                    prefix = prefix[: -len(way.up()) - 1]
                continue
            full = prefix + name
            if len(full) > MAX_NAME:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            try:
                yield from packer.member(way.fd, name, full)
                way.down(name)
            except OSError as error:
                if error.errno not in _GONE:
                    raise explained(error, full) from error
                continue
            levels.append(_names(way.fd, packer.options))
            prefix = f"{full}/"
    finally:
        way.close()


def _names(fd: int, options: Options) -> Iterator[str]:
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) in options.closed:
        return iter(())
    return iter(sorted(os.listdir(fd)))


def _extents(fd: int, size: int) -> tuple[Extent, ...] | None:
    """Where the file has data, None where it has no holes (lseek(2), SEEK_DATA)."""
    if os.fstat(fd).st_blocks * BLOCK >= size:
        return None
    found: list[Extent] = []
    position = 0
    while position < size and len(found) < MAX_EXTENTS:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                break
            return None
        if start >= size:
            break
        found.append((start, position - start))
    else:
        if position < size:
            found.append((position, size - position))
    if found == [(0, size)]:
        return None
    ends = sum(found[-1]) == size if found else False
    return tuple(found) if ends else (*found, (size, 0))


def _data(fd: int, extent: Extent) -> Iterator[bytes]:
    """The bytes of an extent; zeros for what has been cut off meanwhile, as the size is said."""
    position, left = extent
    while left:
        data = os.pread(fd, min(CHUNK, left), position)
        if not data:
            data = bytes(min(CHUNK, left))
        position, left = position + len(data), left - len(data)
        yield data
