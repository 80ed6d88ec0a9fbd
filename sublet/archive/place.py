"""The paths that a user gives, as open directories and names in them.

The user's own symbolic links are followed here. Inside an instance its root directory is that
of the process, so that the kernel keeps every path in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from sublet.archive.failures import explained
from sublet.domain.copying import Kind

_MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def located(path: str, *, follow: bool) -> Iterator[tuple[int, str]]:
    """The open directory that holds `path`, and its name there; `.` for a path that ends with a
    slash or a dot. `follow`: if it is a symbolic link, what that leads to.

    Raises NoSuchPath, CopyFailed.
    """
    try:
        if follow:
            path = target(path)
        head, tail = os.path.split(path)
        if tail in ("", ".", ".."):
            head, tail = path, "."
        fd = os.open(head or ".", _DIRECTORY)
        try:
            os.stat(tail, dir_fd=fd, follow_symlinks=False)
            yield fd, tail
        finally:
            os.close(fd)
    except OSError as error:
        raise explained(error, path) from error


def target(path: str) -> str:
    """What the path leads to when its last component is a link; that need not be there."""
    for _ in range(_MAX_LINKS):
        if path.endswith("/") or not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def kind_at(path: str) -> Kind:
    """What is at the path, links followed. Raises NoSuchPath, CopyFailed."""
    try:
        mode = os.stat(path.rstrip("/") or "/").st_mode
    except FileNotFoundError:
        return Kind.NOTHING
    except OSError as error:
        raise explained(error, path) from error
    return Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.FILE
