"""Files made from an archive's entries, in an open directory, each in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from sublet.archive.entry import Entry
from sublet.archive.failures import occupied
from sublet.archive.reader import Reader
from sublet.domain.errors import CopyFailed, CorruptArchive

TEMPORARY = ".sublet-"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_NO_ID = (1 << 32) - 1


class Owner(Enum):
    """Who gets the files: whoever makes them, root, or whom the archive names."""

    CALLER = "caller"
    ROOT = "root"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Rules:
    """How files are made. `special`: set-user-id bits stay. `xattrs`: user.* and file
    capabilities are set. `follow`: symbolic links that were there before are followed."""

    owner: Owner = Owner.CALLER
    special: bool = False
    xattrs: bool = False
    follow: bool = False


@contextlib.contextmanager
def replacing(at: int, name: str) -> Iterator[str]:
    """A name in the directory `at`; what is made there takes the place of `name` in one step."""
    temporary = TEMPORARY + secrets.token_hex(8)
    try:
        yield temporary
        try:
            os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
        except IsADirectoryError as error:
            raise occupied(name) from error
    finally:
        # Also after success: rename(2) leaves alone two names of one file.
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=at)


def write(reader: Reader, entry: Entry, at: int, name: str, rules: Rules) -> None:
    """A regular file with the data that comes next, holes kept."""
    fd = os.open(name, _NEW, 0o600, dir_fd=at)
    try:
        for offset, piece in reader.data():
            view = memoryview(piece)
            while view:
                done = os.pwrite(fd, view, offset)
                offset, view = offset + done, view[done:]
        if entry.extents is not None:
            os.ftruncate(fd, entry.size)
        set_attributes(fd, entry, rules)
    finally:
        os.close(fd)


def set_attributes(fd: int, entry: Entry, rules: Rules) -> None:
    """Owner, mode, extended attributes and time, in the order in which none undoes another."""
    uid, gid = _owner(entry, rules)
    if uid >= 0:
        with _explained(entry):
            os.fchown(fd, uid, gid)
    os.fchmod(fd, entry.mode if rules.special else entry.mode & ~_SPECIAL)
    if rules.xattrs:
        for key, value in entry.xattrs.items():
            if key.startswith("user.") or key == "security.capability":
                with contextlib.suppress(OSError):  # not every file system takes them
                    os.setxattr(fd, key, value)
    os.utime(fd, (entry.mtime, entry.mtime))


def set_by_name(entry: Entry, at: int, name: str, rules: Rules) -> None:
    """The owner, and the time, of what cannot be opened: a symbolic link, a FIFO."""
    uid, gid = _owner(entry, rules)
    if uid >= 0:
        with _explained(entry):
            os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
    os.utime(name, (entry.mtime, entry.mtime), dir_fd=at, follow_symlinks=False)


def _owner(entry: Entry, rules: Rules) -> tuple[int, int]:
    if rules.owner is Owner.CALLER:
        return (-1, -1)
    if rules.owner is Owner.ROOT:
        return (0, 0)
    if not (entry.uid < _NO_ID and entry.gid < _NO_ID):
        raise CorruptArchive("The archive holds an owner that there cannot be.")
    return (entry.uid, entry.gid)


@contextlib.contextmanager
def _explained(entry: Entry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise CopyFailed(
            f"{entry.name} cannot be given to its owner {entry.uid}:{entry.gid} there.",
            hint="Copy without -a; in an instance there are no ids above 65535.",
        ) from error
