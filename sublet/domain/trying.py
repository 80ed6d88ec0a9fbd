"""What `try` shows of what was changed, and of what of the host an instance sees with `--host`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from sublet.domain.changes import SYSTEM, Row
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import format_bytes

SHOWN = 40
"""Changes that are told one by one; of more, new directories are told as one."""

NOISE = (
    *("/run", "/var/cache", "/var/log", "/var/lib/apt", "/var/lib/dpkg"),
    *(f"/usr/share/{name}" for name in ("doc", "info", "locale", "man")),
    *("/root/.cache", "/root/.bash_history", "/etc/ld.so.cache"),
)
"""Where programs that are installed leave what nobody looks for."""

_PASSED = frozenset(("/tmp", "/var/tmp", *SYSTEM))
"""What such programs change in passing; what they leave in there may be somebody's work."""

_OVERLAID = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})
"""File systems that can be id-mapped and lie under an overlay."""

_FILES = frozenset(
    {"vfat", "exfat", "ntfs3", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "zfs", "tmpfs"}
)
"""Others that hold files; what is not named here is the kernel's."""

_OTHERS = ("/dev/loop", "shm")
"""What sources of mounts begin with that are packed files, or a container's shared memory."""

_KERNELS = ("/proc", "/sys", "/dev", "/run")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list: the change's kind, its path, and what it stands for: `count` changes of
    `size` bytes. `path` ends with a slash where it stands for all that is new in there."""

    kind: str
    path: str
    count: int = 1
    size: int = 0

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.kind} {self.path}"
        return f"{self.kind} {self.path} ({self.count} entries, {format_bytes(self.size)})"


def told(rows: Iterable[Row]) -> Iterator[Row]:
    """The changes without directories that are among them only since something in them has
    changed."""
    before: Row | None = None
    for row in rows:
        if before and not _is_way(before, row):
            yield before
        before = row
    if before:
        yield before


def lines(rows: Iterable[Row], *, everything: bool = False) -> Iterator[Line]:
    """The changes as they are shown; of more than SHOWN, a new directory stands for all in it."""
    rest = iter(rows)
    first = list(islice(rest, SHOWN + 1))
    if everything or len(first) <= SHOWN:
        for row in chain(first, rest):
            yield Line(row["kind"], row["path"], size=row["size"])
    else:
        yield from _grouped(chain(first, rest))


def _grouped(rows: Iterable[Row]) -> Iterator[Line]:
    """A line for every new directory with all in it, and for everything else."""
    last: Line | None = None
    for row in rows:
        if last and last.path.endswith("/") and row["path"].startswith(last.path):
            last = Line(last.kind, last.path, last.count + 1, last.size + row["size"])
            continue
        if last:
            yield last
        is_new = row["kind"] == "A" and row["type"] == "directory"
        last = Line(row["kind"], f"{row['path']}{'/' * is_new}", size=row["size"])
    if last:
        yield last


def _is_way(row: Row, after: Row) -> bool:
    """Whether it is a directory that was there before, and something in it has changed: that comes
    next. One whose owner or mode has changed is a change itself."""
    if row["kind"] != "C" or row["type"] != "directory":
        return False
    if "was" in row or "itself" in row:
        return False
    return bool(after["path"].startswith(f"{row['path']}/"))


def is_noise(path: str) -> bool:
    """Whether a path of the host is one that `--host` tells of only when asked: caches, logs,
    lists of packages, and what every instance has of its own."""
    return path in _PASSED or is_at(path, NOISE)


def is_at(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of the places, or lies below one."""
    return any(f"{path}/".startswith(f"{place.rstrip('/')}/") for place in places)


def meant(text: str, here: str, root: str) -> str:
    """The path, as changes have it, that a user in the directory `here` means who tries `root`.

    Raises InvalidArgument for one that is not in there.
    """
    path = posixpath.normpath(posixpath.join(here, text))
    outer = root.rstrip("/")
    if path != root and not path.startswith(f"{outer}/"):
        raise InvalidArgument(
            f"'{text}' is not in {root}, and nothing outside it is changed.",
            hint="Name a path in the directory that is tried.",
        )
    return path.removeprefix(outer) or "/"


def host_mounts(mountinfo: str) -> tuple[list[str], list[str]]:
    """Of the file systems that are mounted on a host, by its mountinfo (proc(5)): those that can be
    shown copy-on-write besides the root, and those that hold files and cannot (with what they are).
    """
    shown, hidden = [], []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source) = before.split(" "), after.split(" ")[:2]
        root, point = fields[3], _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if (
            source.startswith(_OTHERS)
            or point == "/"
            or any(point == k or point.startswith(f"{k}/") for k in _KERNELS)
        ):
            continue
        whole = root == "/" or kind == "btrfs"
        if kind in _OVERLAID and whole and ":" not in point:
            shown.append(point)
        elif (root != point and kind in _FILES | _OVERLAID) or kind.startswith("fuse"):
            hidden.append(f"{point} ({kind})")
    return sorted(set(shown)), sorted(set(hidden))
