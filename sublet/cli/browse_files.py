"""The files that `sublet browse` writes, and what it tells of a page."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sublet.domain.errors import InvalidArgument, SubletError

if TYPE_CHECKING:
    from sublet.browser import Sight


def check_writable(path: str) -> None:
    """Raises InvalidArgument where no such file can be made: before anything is started for it."""
    if path.lower().endswith((".jpg", ".jpeg", ".webp", ".gif")):
        raise InvalidArgument(
            f"'{path}' would be a PNG all the same.", hint="Write --screenshot page.png."
        )
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InvalidArgument(
            f"The file '{path}' cannot be made.",
            hint="Name one in a directory that you may write to: --screenshot /tmp/page.png.",
        )


def write(path: str, data: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = f"{path}.partial"
    try:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        with open(partial, "xb") as file:  # through no link that somebody has put there
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        raise SubletError(f"'{path}' cannot be written: {error.strerror}.", hint="") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def told(seen: Sight, image: str) -> dict[str, Any]:
    """What `--json` says of a page, but for its files."""
    return {
        "image": image,
        "browser": seen.browser,
        "title": seen.title,
        "url": seen.url,
        "status": seen.status,
        "seconds": seen.seconds,
        "warnings": warnings(seen),
    }


def warnings(seen: Sight) -> list[str]:
    """What one should know of the picture, a sentence each."""
    bad = seen.status is not None and seen.status >= 400
    return [*([f"The server answered {seen.status}."] if bad else []), *seen.notes]
