"""What happens in a directory, as the program that works inside an instance sees it (inside.py):
inotify(7), whose events are told as `file_events.text` has them."""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
from collections.abc import Iterator

from sublet.archive.failures import explained
from sublet.domain.file_events import DIRECTORIES_MOST, FileChange, text
from sublet.drivers import linux

_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED, _ISDIR = 0x2000, 0x4000, 0x8000, 0x40000000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_HEAD = struct.Struct("iIII")
_READ = 1 << 16
_MOMENT = 0.05
"""Seconds in which one hears of the other end of a move, where there is one."""


def watch(path: str, *, recursive: bool) -> Iterator[str]:
    """What happens to what is in the directory, or to the file, from the first event on, which is
    `ready`. Ends when it is removed, or moved away. Raises NoSuchPath, CopyFailed."""
    try:
        path = path.rstrip("/") or "/"
        watching = Watching(path, recursive)
        yield text(FileChange.READY, path)
        while not watching.over:
            yield "".join(watching.next())
    except OSError as error:
        raise explained(error, path) from error


class Watching:
    """The directories that are watched, and what has happened in them."""

    def __init__(self, path: str, recursive: bool) -> None:
        self._fd = linux.inotify_init()
        self._recursive = recursive and stat.S_ISDIR(os.stat(path).st_mode)
        self._paths: dict[int, str] = {}
        self._root = self._add(path, _MASK)
        self._moved: tuple[int, str, bool] | None = None
        """What has left a place, until it is known whether it has come to another: its cookie."""
        self.over = False
        if self._recursive:
            list(self._below(path))

    def next(self) -> Iterator[str]:
        """What happens next; it waits for that."""
        data, told = os.read(self._fd, _READ), ""
        while data:
            number, mask, cookie, length = _HEAD.unpack_from(data)
            end = _HEAD.size + length
            name, data = os.fsdecode(data[_HEAD.size : end].rstrip(b"\0")), data[end:]
            for each in self._event(number, mask, cookie, name):
                if each != told:  # many writes are told as one
                    yield each
                told = each
        if self._moved and not select.select([self._fd], [], [], _MOMENT)[0]:
            yield from self._left()

    def _event(self, number: int, mask: int, cookie: int, name: str) -> Iterator[str]:
        if mask & _OVERFLOW:
            yield text(FileChange.LOST, self._paths.get(self._root, "/"))
            return
        place = self._paths.get(number)
        if place is None:
            return
        if mask & _IGNORED:
            self._paths.pop(number, None)
        if self._moved and not (mask & _MOVED_TO and cookie == self._moved[0]):
            yield from self._left()
        if not name:
            yield from self._itself(number, mask, place)
            return
        yield from self._in(mask, cookie, f"{place.rstrip('/')}/{name}")

    def _itself(self, number: int, mask: int, place: str) -> Iterator[str]:
        """Something happened to what is watched."""
        if number != self._root:
            return
        if mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT):
            self.over = True
            yield text(FileChange.DELETED, place)
        elif mask & _IGNORED:
            self.over = True
        elif mask & (_MODIFY | _ATTRIB) and not mask & _ISDIR:
            yield text(FileChange.MODIFIED, place)

    def _in(self, mask: int, cookie: int, path: str) -> Iterator[str]:
        """Something happened in a directory."""
        directory = bool(mask & _ISDIR)
        if mask & _MOVED_FROM:
            self._moved = cookie, path, directory
        elif mask & _MOVED_TO and self._moved:
            before, self._moved = self._moved[1], None
            if directory:
                self._renamed(before, path)
            yield text(FileChange.MOVED, before, path)
        elif mask & (_CREATE | _MOVED_TO):
            yield text(FileChange.CREATED, path)
            if directory and self._recursive:
                yield from self._added(path)
        elif mask & _DELETE:
            yield text(FileChange.DELETED, path)
        elif mask & (_MODIFY | _ATTRIB):
            yield text(FileChange.MODIFIED, path)

    def _left(self) -> Iterator[str]:
        """What has been moved to where nobody watches."""
        if self._moved:
            (_, path, directory), self._moved = self._moved, None
            if directory:
                self._renamed(path, "")
            yield text(FileChange.DELETED, path)

    def _renamed(self, before: str, after: str) -> None:
        """A directory has another path, or (empty) none that is watched."""
        for number, path in list(self._paths.items()):
            if path != before and not path.startswith(f"{before}/"):
                continue
            if after:
                self._paths[number] = after + path[len(before) :]
            else:
                del self._paths[number]
                linux.inotify_rm_watch(self._fd, number)

    def _added(self, path: str) -> Iterator[str]:
        """A new directory, and what has been made in it since."""
        try:
            self._add(path, _MASK | _ONLYDIR | _DONT_FOLLOW)
            for entry in self._below(path):
                yield text(FileChange.CREATED, entry)
        except (FileNotFoundError, NotADirectoryError):
            return

    def _below(self, path: str) -> Iterator[str]:
        """All that is in the directory, which is watched from now on."""
        waiting = [path]
        while waiting:
            place = waiting.pop()
            try:
                names = sorted(os.listdir(place))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                entry = os.path.join(place, name)
                yield entry
                try:
                    if stat.S_ISDIR(os.lstat(entry).st_mode):
                        self._add(entry, _MASK | _ONLYDIR | _DONT_FOLLOW)
                        waiting.append(entry)
                except (FileNotFoundError, NotADirectoryError):
                    continue

    def _add(self, path: str, mask: int) -> int:
        if len(self._paths) >= DIRECTORIES_MOST:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        number = linux.inotify_add_watch(self._fd, path, mask)
        self._paths[number] = path
        return number
