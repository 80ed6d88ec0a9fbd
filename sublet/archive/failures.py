"""What a system call's error means to somebody who copies files."""

from __future__ import annotations

import errno

from sublet.domain.errors import CopyFailed, DiskFull, NoSuchPath, SubletError


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
    return CopyFailed(f"{shown}: {error.strerror or error}.")
