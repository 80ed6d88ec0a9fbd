"""What differs between a writable layer and what lies below it, found as the overlay above them
shows it: whiteouts are character devices 0:0, `trusted.overlay.opaque` hides a directory of what
is below (Documentation/filesystems/overlayfs.rst).

It only looks: directories are opened one below the other and through no link (directories.py).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from sublet.archive.directories import Way
from sublet.domain.changes import Made

ADDED, CHANGED, DELETED = "ACD"
MAX_PATH = 1 << 16
_OPAQUE = "trusted.overlay.opaque"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: `kind` A, C or D, `path` from `/` on; the status of what is there now, of a
    deleted one what was. `parent` is an open directory that has it, until the next is asked for;
    -1 for what is only told of since something in it has changed. `bare`: a directory that
    differs in nothing but its times. `old`: what it was before, if that was there."""

    kind: str
    path: str
    status: os.stat_result
    parent: int = -1
    bare: bool = False
    old: os.stat_result | None = None


@dataclass(slots=True)
class _Level:
    """A directory of the upper layer: the names left in it, whether the lower has it too, its
    status, and the change that it is if there are any in it."""

    names: Iterator[str]
    both: bool
    status: os.stat_result
    pending: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    """What is at a name: the change (empty: none, or only if there are any below), the statuses
    above and below, and whether both are directories."""

    kind: str
    new: os.stat_result | None
    old: os.stat_result | None
    both: bool = False
    bare: bool = False


@dataclass(slots=True)
class _Walk:
    up: Way
    low: Way
    base: int
    made: Made
    levels: list[_Level] = field(default_factory=list)

    def names(self, both: bool) -> Iterator[str]:
        found = set(os.listdir(self.up.fd))
        if both and _is_opaque(self.up.fd):
            found.update(os.listdir(self.low.fd))
        return iter(sorted(found))

    def look(self, name: str, path: str) -> _Look:
        new = _status(self.up.fd, name)
        old = _status(self.low.fd, name) if self.levels[-1].both else None
        if new is None or (stat.S_ISCHR(new.st_mode) and new.st_rdev == 0):
            return _Look(DELETED if old else "", None, old)
        kind = CHANGED if old else ADDED
        expected = old is None and path in self.made.points
        if not stat.S_ISDIR(new.st_mode):
            return _Look("" if expected and not new.st_size else kind, new, old)
        if old is None or not stat.S_ISDIR(old.st_mode):
            return _Look("" if expected else kind, new, old)
        alike, times = self._alike(new, old, path)
        return _Look("" if alike and times else kind, new, old, both=True, bare=alike)

    def _alike(self, new: os.stat_result, old: os.stat_result, path: str) -> tuple[bool, bool]:
        """Whether owners and mode are the same, and the times."""
        owners = (new.st_uid - self.base, new.st_gid - self.base) == (old.st_uid, old.st_gid)
        times = int(new.st_mtime) == int(old.st_mtime) or path in self.made.parents
        return owners and new.st_mode == old.st_mode, times

    def enter(self, name: str, look: _Look) -> None:
        """Go into a directory. Raises OSError, and then is where it was."""
        assert look.new is not None
        self.up.down(name)
        try:
            if look.both:
                self.low.down(name)
            pending = "" if look.kind else (CHANGED if look.both else ADDED)
            self.levels.append(_Level(self.names(look.both), look.both, look.new, pending))
        except OSError:
            self.up.up()
            if len(self.low.names) > len(self.up.names):
                self.low.up()
            raise

    def leave(self) -> str:
        """Go up again; the name of the directory, empty at the top."""
        level = self.levels.pop()
        if not self.levels:
            return ""
        if level.both:
            self.low.up()
        return self.up.up()


def changes(upper: int, lower: int, base: int, made: Made) -> Iterator[Change]:
    """The changes, in order; of what changes meanwhile, some state. A directory comes before
    what is in it, and is `C` when anything in it has changed.

    No recursion: the depth is the tenant's choice.
    """
    walk = _Walk(Way(upper), Way(lower), base, made)
    walk.levels.append(_Level(walk.names(True), True, os.fstat(upper)))
    prefix = "/"
    while walk.levels:
        name = next(walk.levels[-1].names, None)
        if name is None:
            left = walk.leave()
            prefix = prefix[: -len(left) - 1] if left else prefix
            continue
        path = prefix + name
        look = walk.look(name, path)
        if look.kind and (status := look.new or look.old):
            yield from _pending(walk, prefix)
            yield Change(look.kind, path, status, walk.up.fd, look.bare, look.old)
        if look.new is None or not stat.S_ISDIR(look.new.st_mode):
            continue
        if len(path) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try:
            walk.enter(name, look)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        else:
            prefix = f"{path}/"


def _pending(walk: _Walk, prefix: str) -> Iterator[Change]:
    """The directories on the way here that are told only now, as something in them is."""
    if not walk.levels[-1].pending:
        return
    names = prefix.strip("/").split("/")
    for depth, level in enumerate(walk.levels[1:], 1):
        if level.pending:
            yield Change(level.pending, "/" + "/".join(names[:depth]), level.status)
            level.pending = ""


def _status(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False
