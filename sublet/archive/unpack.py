"""A tar stream becomes files below one open directory, and nowhere else.

The archive is hostile: its names have no way up, no symbolic link that it made (on the host:
none at all) is followed, a hard link leads to what lies below the same directory, and devices
are left out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from sublet.archive.directories import OPEN, Way
from sublet.archive.entry import DIRECTORY, FIFO, FILE, HARD_LINK, LINK, Entry
from sublet.archive.failures import explained, leads_out, no_directory
from sublet.archive.making import Rules, replacing, set_attributes, set_by_name, write
from sublet.archive.reader import Reader
from sublet.domain.errors import CorruptArchive

MAX_DEPTH = 1 << 16
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


class Unpacker:
    """Unpacks into the directory `root`, which is called `shown`.

    The first `strip` components of every name give way to `prefix`. `count` entries were
    made; `left_out` were not, as they are devices.
    """

    def __init__(
        self, root: int, rules: Rules, *, shown: str, prefix: Sequence[str] = (), strip: int = 0
    ) -> None:
        self._root, self._rules = root, rules
        self._shown, self._prefix, self._strip = shown, list(prefix), strip
        self._made_links: set[tuple[int, int]] = set()
        self._way = Way(root, self._enter)
        self._after: list[Entry | None] = []
        self.count = self.left_out = 0

    def run(self, reader: Reader, first: Entry | None) -> None:
        """Make `first` and all entries that follow. Raises CopyFailed, DiskFull, CorruptArchive."""
        at = self._shown
        try:
            entry = first
            while entry is not None:
                names = self._names(entry.name)
                at = os.path.join(self._shown, *names)
                if names:
                    self._go(names[:-1])
                    self._make(reader, entry, names[-1])
                entry = reader.next()
            self._go([])
        except OSError as error:
            raise explained(error, at) from error
        finally:
            self._way.close()

    def _names(self, text: str) -> list[str]:
        """The components of a name in the archive, as they are below the directory."""
        names = [name for name in text.split("/") if name not in ("", ".")]
        if ".." in names:
            raise leads_out(text)
        if len(names) > MAX_DEPTH:
            raise CorruptArchive("The archive holds directories that are too deep.")
        return self._prefix + names[self._strip :]

    def _enter(self, parent: int, name: str) -> int:
        try:
            return os.open(name, OPEN, dir_fd=parent)
        except OSError as error:
            if not self._rules.follow or error.errno not in _NO_DIRECTORY:
                raise
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode) or self._is_made(status):
                raise
            return os.open(name, OPEN & ~os.O_NOFOLLOW, dir_fd=parent)

    def _is_made(self, status: os.stat_result) -> bool:
        return (status.st_dev, status.st_ino) in self._made_links

    def _go(self, names: list[str]) -> None:
        """Be in the directory `names`, made if need be; what is left gets its attributes."""
        way, common = self._way, 0
        for have, want in zip(way.names, names, strict=False):
            if have != want:
                break
            common += 1
        while len(way.names) > common:
            if entry := self._after.pop():
                set_attributes(way.fd, entry, self._rules)
            way.up()
        for name in names[common:]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=way.fd)
            self._down(name, None)

    def _down(self, name: str, entry: Entry | None) -> None:
        try:
            self._way.down(name)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            raise no_directory(name) from error
        self._after.append(entry)

    def _make(self, reader: Reader, entry: Entry, name: str) -> None:
        at, rules = self._way.fd, self._rules
        self.count += 1
        if entry.kind == DIRECTORY:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
            self._down(name, entry)
        elif entry.kind not in (FILE, LINK, FIFO, HARD_LINK):
            self.count, self.left_out = self.count - 1, self.left_out + 1
        else:
            with replacing(at, name) as temporary:
                if entry.kind == FILE:
                    write(reader, entry, at, temporary, rules)
                elif entry.kind == HARD_LINK:
                    self._hard_link(entry, at, temporary)
                else:
                    self._node(entry, at, temporary)

    def _node(self, entry: Entry, at: int, name: str) -> None:
        if entry.kind == FIFO:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=at)
        else:
            os.symlink(entry.link, name, dir_fd=at)
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            self._made_links.add((status.st_dev, status.st_ino))
        set_by_name(entry, at, name, self._rules)

    def _hard_link(self, entry: Entry, at: int, name: str) -> None:
        """A further name for what the archive made before; a symbolic link is linked itself."""
        *way, last = self._names(entry.link) or [""]
        with contextlib.closing(Way(self._root, self._enter)) as source:
            for step in way:
                source.down(step)
            os.link(last, name, src_dir_fd=source.fd, dst_dir_fd=at, follow_symlinks=False)
