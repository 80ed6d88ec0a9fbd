"""What a system call's error means to somebody who copies files."""

from __future__ import annotations

import errno

from sublet.domain.errors import CopyFailed, CorruptArchive, DiskFull, NoSuchPath, SubletError


def explained(error: OSError, path: str) -> SubletError:
    """The error in a sentence about `path`."""
    shown = path.encode(errors="replace").decode()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No space is left for {shown}.", hint="Free some space where it goes.")
    if error.errno == errno.ENOENT:
        return NoSuchPath(f"There is no {shown}.")
    if error.errno == errno.EROFS:
        return CopyFailed(
            f"{shown} cannot be written: it is on a read-only mount.",
            hint="Choose a path that is not on a read-only volume.",
        )
    if error.errno == errno.EBUSY:
        return CopyFailed(
            f"{shown} cannot be replaced: something is mounted there.",
            hint="Copy to another path, or write it from inside with `sublet exec`.",
        )
    if error.errno == errno.EISDIR:
        return CopyFailed(
            f"{shown} is a directory, not a file.", hint="List it, or name a file in it."
        )
    if error.errno == errno.E2BIG:
        return CopyFailed(
            f"There is too much in {shown}.", hint="Name a directory in it, or go less deep."
        )
    return CopyFailed(f"{shown}: {error.strerror or error}.")


def special(path: str) -> CopyFailed:
    """What is no file, no directory and no symbolic link was asked for."""
    return CopyFailed(f"{path} is a FIFO, a socket or a device: there is nothing to copy.")


def occupied(name: str) -> CopyFailed:
    """A directory is in the way of a file."""
    return CopyFailed(
        f"{name} is a directory, and what is to be copied there is not.",
        hint="Move it out of the way, or copy to another path.",
    )


def no_directory(name: str) -> CopyFailed:
    """Something else is in the way of a directory."""
    return CopyFailed(
        f"{name} is no directory, and a directory is to be copied there.",
        hint="Move it out of the way, or copy to another path.",
    )


def leads_out(name: str) -> CorruptArchive:
    """An archive's name has a way up in it."""
    return CorruptArchive(f"The archive holds a name that leads out of it: {name}")
