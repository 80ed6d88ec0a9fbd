"""The program that compares an instance's writable layer with its image, as the overlay above
them does: whiteouts are character devices 0:0, `trusted.overlay.opaque` hides a directory of the
image (Documentation/filesystems/overlayfs.rst).

It only looks: directories are opened one below the other and through no link (directories.py),
files not at all. So it may do what reading `trusted.*` needs, in a process of its own.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from sublet.archive.directories import Way
from sublet.archive.failures import explained
from sublet.domain.changes import Made
from sublet.domain.errors import SubletError
from sublet.drivers import linux
from sublet.drivers.container import child

ADDED, CHANGED, DELETED = "ACD"
MAX_PATH = 1 << 16
_OPAQUE = "trusted.overlay.opaque"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# DAC_READ_SEARCH, SYS_ADMIN of capabilities(7).
_CAPABILITIES = 1 << 2 | 1 << 21
Change = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Layers:
    """`upper` belongs to ids from `base` on; `points` and `parents` as of `Made`."""

    upper: str
    lower: str
    base: int
    points: tuple[str, ...]
    parents: tuple[str, ...]


def argv(layers: Layers) -> list[str]:
    """The command that prints the changes, one JSON object a line."""
    return child.argv(__name__, json.dumps(asdict(layers)))


def main(text: str) -> None:
    """Print the changes; an error goes to standard error as JSON, and the exit code is 1."""
    try:
        data = json.loads(text)
        layers = Layers(**data)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        upper, lower = os.open(layers.upper, flags), os.open(layers.lower, flags)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.capset(_CAPABILITIES)
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
        points = Made(frozenset(layers.points), frozenset(layers.parents))
        for kind, path in changes(upper, lower, layers.base, points):
            print(json.dumps({"kind": kind, "path": path}))
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        _end(explained(error, "the instance's file system"))
    except SubletError as error:
        _end(error)
    os._exit(0)


def _end(error: SubletError) -> None:
    print(json.dumps(error.to_dict()), file=sys.stderr, flush=True)
    os._exit(1)


@dataclass(slots=True)
class _Level:
    """A directory of the upper layer: the names left in it, whether the image has it too, and
    the change that it is if there are any in it."""

    names: Iterator[str]
    both: bool
    pending: str = ""


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

    def look(self, name: str, path: str) -> tuple[str, os.stat_result | None, bool]:
        """The change at `name` (empty: none, or only if there are any below), the status of a
        directory to look into, and whether the image has that too."""
        new = _status(self.up.fd, name)
        old = _status(self.low.fd, name) if self.levels[-1].both else None
        if new is None or (stat.S_ISCHR(new.st_mode) and new.st_rdev == 0):
            return (DELETED if old else "", None, False)
        kind = CHANGED if old else ADDED
        if not stat.S_ISDIR(new.st_mode):
            return (
                "" if not old and path in self.made.points and not new.st_size else kind,
                None,
                False,
            )
        both = old is not None and stat.S_ISDIR(old.st_mode)
        if both and old is not None:
            same = self._same(new, old, path)
        else:
            same = old is None and path in self.made.points
        return ("" if same else kind, new, both)

    def _same(self, new: os.stat_result, old: os.stat_result, path: str) -> bool:
        owners = (new.st_uid - self.base, new.st_gid - self.base) == (old.st_uid, old.st_gid)
        times = int(new.st_mtime) == int(old.st_mtime) or path in self.made.parents
        return owners and times and new.st_mode == old.st_mode

    def enter(self, name: str, both: bool, pending: str) -> None:
        """Go into a directory. Raises OSError, and then is where it was."""
        self.up.down(name)
        try:
            if both:
                self.low.down(name)
            self.levels.append(_Level(self.names(both), both, pending))
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
    walk.levels.append(_Level(walk.names(True), True))
    prefix = "/"
    while walk.levels:
        name = next(walk.levels[-1].names, None)
        if name is None:
            left = walk.leave()
            prefix = prefix[: -len(left) - 1] if left else prefix
            continue
        path = prefix + name
        kind, directory, both = walk.look(name, path)
        if kind:
            yield from _pending(walk, prefix)
            yield kind, path
        if directory is None:
            continue
        if len(path) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try:
            walk.enter(name, both, "" if kind else (CHANGED if both else ADDED))
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
            yield level.pending, "/" + "/".join(names[:depth])
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
