"""What our program that works on an instance's files (`guest/copy_say.c`) says was wrong.

What it says of paths was written by the tenant: it is shown as plain text, and not all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from sublet.archive import failures
from sublet.domain.errors import CorruptArchive, SubletError

_SHOWN = 400
_REASONS: dict[str, Callable[[str], SubletError]] = {
    "corrupt": CorruptArchive,
    "special": failures.special,
    "directory": failures.occupied,
    "no-directory": failures.no_directory,
    "way-out": failures.leads_out,
}


def told(complaint: bytes) -> SubletError | None:
    """The error: `REASON ABOUT`, or a number of errno(3) and a path; None: it makes no sense."""
    reason, _, about = complaint.decode(errors="replace").partition(" ")
    about = "".join(c if c.isprintable() else "?" for c in about[:_SHOWN])
    if reason.isascii() and reason.isdigit() and len(reason) < 4:
        number = int(reason)
        return failures.explained(OSError(number, os.strerror(number)), about)
    if reason in _REASONS and about:
        return _REASONS[reason](about)
    return None
