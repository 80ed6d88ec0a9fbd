"""Changes that were made to a copy of a directory, made to the directory itself.

What they are was the doing of a stranger: every path is resolved one component at a time below the
open directory, through no symbolic link (directories.py, unpack.py), so that nothing outside it is
touched, whoever swaps what meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sublet.archive.directories import Way
from sublet.archive.entry import BLOCK_DEVICE, CHARACTER, HARD_LINK, Entry
from sublet.archive.failures import explained
from sublet.archive.making import Owner, Rules
from sublet.archive.reader import Reader
from sublet.archive.unpack import Unpacker
from sublet.domain.changes import Row
from sublet.domain.errors import CorruptArchive

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class Applied:
    """Paths (with a slash before them) that are as the changes have them now, and those that were
    kept, as they had changed here too; and how many devices, sockets and the like were left out."""

    applied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: int = 0


def apply(
    directory: str,
    rows: Sequence[Row],
    pieces: Iterable[bytes],
    owner: Owner,
    since: float | None,
    held: int | None = None,
) -> Applied:
    """Make `rows` come true below `directory`; the files are in the tar stream `pieces`. `held` is
    that directory, opened when it was looked at: whoever may write above it can have put a link
    in its place since.

    What was changed there after `since` (seconds since the epoch; None: nothing) stays. Raises
    CopyFailed, CorruptArchive, DiskFull, NoSuchPath; what is done by then is done.
    """
    done = Applied()
    try:
        root = os.open(directory, _ROOT) if held is None else os.dup(held)
    except OSError as error:
        raise explained(error, directory) from error
    try:
        wanted: set[str] = set()
        for row in rows:
            if _below(row["path"], done.kept):
                continue
            if since is not None and _changed(root, row, since):
                done.kept.append(row["path"])
            else:
                wanted.add(row["path"])
        for row in rows:
            if row["path"] in wanted:
                _make_room(root, row, directory)
        reader = _Chosen(pieces, wanted)
        unpacker = Unpacker(root, Rules(owner=owner), shown=directory)
        unpacker.run(reader, reader.next())
    finally:
        os.close(root)
    wanted -= (missing := _missing(rows, wanted, reader.given))
    done.applied = [row["path"] for row in rows if row["path"] in wanted]
    done.left_out = len(missing)
    return done


def _missing(rows: Sequence[Row], wanted: set[str], given: set[str]) -> set[str]:
    """What is wanted, and was not given by the archive: that leaves sockets out, and a directory
    that differs in its times alone, which is none the worse for it."""
    files = (row["path"] for row in rows if row["kind"] != "D" and row["type"] != "directory")
    return {path for path in files if path in wanted and path not in given}


class _Chosen(Reader):
    """An archive without the members that are not wanted, and without devices."""

    def __init__(self, pieces: Iterable[bytes], wanted: set[str]) -> None:
        super().__init__(pieces)
        self._wanted = wanted
        self.given: set[str] = set()

    def next(self) -> Entry | None:
        while (entry := super().next()) is not None:
            path = "/" + entry.name.strip("/")
            if path not in self._wanted or entry.kind in (CHARACTER, BLOCK_DEVICE):
                continue
            if entry.kind == HARD_LINK and "/" + entry.link.strip("/") not in self.given:
                continue  # what is there under that name is not the archive's
            self.given.add(path)
            return entry
        return None


def _names(path: str) -> list[str]:
    names = path.strip("/").split("/")
    if {"", ".", ".."}.intersection(names):
        raise CorruptArchive(f"A change is at '{path}', which is no path.")
    return names


@contextlib.contextmanager
def _held(root: int, path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """The open directory that has `path`, its name there, and its status. Raises OSError."""
    *above, name = _names(path)
    with contextlib.closing(Way(root)) as way:
        for step in above:
            way.down(step)
        yield way.fd, name, os.stat(name, dir_fd=way.fd, follow_symlinks=False)


def _changed(root: int, row: Row, since: float) -> bool:
    """Whether what the change would replace or delete has changed here after `since`. Nobody can
    set the time by which that is told (st_ctime, inode(7))."""
    try:
        with _held(root, row["path"]) as (at, name, status):
            if not stat.S_ISDIR(status.st_mode):
                return status.st_ctime > since
            if row["kind"] != "D" and row["type"] == "directory":
                return False  # what is in it is told by itself
            return status.st_ctime > since or any(
                os.stat(inner, dir_fd=fd, follow_symlinks=False).st_ctime > since
                for _, directories, files, fd in os.fwalk(name, dir_fd=at, follow_symlinks=False)
                for inner in (*directories, *files)
            )
    except OSError:
        return False


def _make_room(root: int, row: Row, shown: str) -> None:
    """Take away what the change deletes, and what stands in the way of another kind of file."""
    try:
        with _held(root, row["path"]) as (at, name, status):
            is_directory = stat.S_ISDIR(status.st_mode)
            if row["kind"] != "D" and is_directory == (row["type"] == "directory"):
                return
            if is_directory:
                shutil.rmtree(name, dir_fd=at)
            else:
                os.unlink(name, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return  # it is gone already
    except OSError as error:
        raise explained(error, os.path.join(shown, *_names(row["path"]))) from error


def _below(path: str, others: Sequence[str]) -> bool:
    return any(path.startswith(f"{other}/") for other in others)
