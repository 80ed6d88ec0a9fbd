"""What is done with single files, by the program that works inside an instance (inside.py).

All of it runs after that program has entered: every path is the instance's own, and resolved in
its root. Nothing waits for a FIFO, and nothing is read but files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from sublet.archive.directories import Way
from sublet.archive.failures import explained, no_directory, occupied, special
from sublet.archive.place import located
from sublet.domain.file_info import KEEP, LIST_MOST, FileType, FileVerb, text

_CHUNK = 1 << 18
_AWAY = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
}


def fetch(path: str) -> Iterator[bytes]:
    """What the file holds. Raises NoSuchPath, CopyFailed."""
    try:
        fd = _opened(path, os.O_RDONLY)
        while piece := os.read(fd, _CHUNK):
            yield piece
    except OSError as error:
        raise explained(error, path) from error


def store(pieces: Iterator[bytes], path: str, mode: int) -> None:
    """Let the file hold the pieces and nothing else; where there is none it is made, and the
    directories to it. Raises CopyFailed, DiskFull."""
    os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if mode != KEEP:
            os.fchmod(fd, mode)
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
    except (FileExistsError, NotADirectoryError) as error:
        raise no_directory(os.path.dirname(path)) from error
    except OSError as error:
        raise explained(error, path) from error


def _opened(path: str, flags: int) -> int:
    """A descriptor of a file that is one, whatever else is there: it is never waited for."""
    try:
        if not path.endswith("/") and not _is_file(os.stat(path).st_mode, path):
            raise special(path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    fd = os.open(path, flags | _AWAY, 0o644)
    if not _is_file(os.fstat(fd).st_mode, path):  # it was exchanged meanwhile
        raise special(path)
    return fd


def _is_file(mode: int, path: str) -> bool:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return stat.S_ISREG(mode)


def answer(verb: str, path: str, to: str, depth: int) -> Iterator[str]:
    """Do it; entries, as `file_info.text` has them. Raises NoSuchPath, CopyFailed."""
    os.umask(0o022)
    try:
        if verb == FileVerb.STAT:
            yield _entry(path, os.stat(path))
        elif verb == FileVerb.LIST:
            yield from _listed(path, depth)
        elif verb == FileVerb.MAKE:
            os.makedirs(path, exist_ok=True)
        elif verb == FileVerb.REMOVE:
            _remove(path)
        else:
            _rename(path, to)
    except FileExistsError as error:
        raise no_directory(path) from error
    except OSError as error:
        raise explained(error, path) from error


def _entry(path: str, status: os.stat_result) -> str:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), FileType.OTHER)
    target = os.readlink(path) if kind is FileType.SYMLINK else ""
    mode, changed = stat.S_IMODE(status.st_mode), status.st_mtime_ns
    return text(kind, status.st_size, mode, changed, path, target)


def _listed(path: str, depth: int) -> Iterator[str]:
    """What is in the directory, in order, each directory before what is in it."""
    waiting, count = [(path, 0)], 0
    while waiting:
        place, level = waiting.pop()
        below = []
        for name in _names(place, asked=level == 0):
            whole = os.path.join(place, name)
            try:
                status = os.lstat(whole)
                entry = _entry(whole, status)
            except FileNotFoundError:
                continue
            count += 1
            if count > LIST_MOST:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            yield entry
            if level + 1 < depth and stat.S_ISDIR(status.st_mode):
                below.append((whole, level + 1))
        waiting.extend(reversed(below))


def _names(path: str, *, asked: bool) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        if asked:
            raise
        return []  # it has gone meanwhile


def _rename(path: str, to: str) -> None:
    with located(path, follow=False) as (parent, name):
        try:
            os.rename(name, to, src_dir_fd=parent)
        except IsADirectoryError as error:
            raise occupied(to) from error
        except OSError as error:
            os.stat(name, dir_fd=parent, follow_symlinks=False)  # then it is about the other
            raise explained(error, to) from error


def _remove(path: str) -> None:
    """Remove a file, a link, or a directory with all that is in it, however deep."""
    with located(path.rstrip("/"), follow=False) as (parent, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        way = Way(parent)
        try:
            _empty(way, name)
        finally:
            way.close()


def _empty(way: Way, name: str) -> None:
    way.down(name)
    levels = [_unlinked(way.fd)]
    while levels:
        if levels[-1]:
            way.down(levels[-1].pop())
            levels.append(_unlinked(way.fd))
        else:
            levels.pop()
            left = way.up()
            os.rmdir(left, dir_fd=way.fd)


def _unlinked(directory: int) -> list[str]:
    """Unlink what is no directory; the names of those."""
    below = []
    for name in os.listdir(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            below.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    return below
