"""What `cp` means: which side is the instance, and where a copy lands. Docker's rules, which
are those of `cp -a` (docker-container-cp(1))."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import CopyFailed, InvalidArgument, NoSuchPath

STREAM = "-"
_HINT = "Write INSTANCE:PATH for one of the two, or `-` for a tar stream in place of the other."


class Kind(StrEnum):
    """What is copied, or what is where it goes."""

    FILE = "file"
    DIRECTORY = "directory"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a copy: a path of this host, or of the named instance."""

    instance: str
    path: str


def parse_side(text: str) -> Side:
    """`INSTANCE:PATH`, or a path of this host: that is what begins with `/` or `.`, or has no
    colon. Raises InvalidArgument."""
    name, colon, path = text.partition(":")
    if not text or "\0" in text:
        raise InvalidArgument(f"'{text}' is no path.", hint=_HINT)
    if not colon or text.startswith(("/", ".")):
        return Side("", text)
    if not name or not path:
        raise InvalidArgument(f"'{text}' names an instance or a path, not both.", hint=_HINT)
    if path != path.encode(errors="replace").decode():
        raise InvalidArgument("A path in an instance must be UTF-8.", hint="Copy its directory.")
    return Side(name, path)


def parse_sides(source: str, destination: str) -> tuple[Side, Side]:
    """Both sides of a copy, of which exactly one is an instance's."""
    sides = parse_side(source), parse_side(destination)
    of_instances = [side.instance for side in sides if side.instance]
    if len(of_instances) == 2:
        raise InvalidArgument(
            "One cannot copy from one instance to another.",
            hint=f"Pipe it: sublet cp {source} - | sublet cp - {destination}",
        )
    if not of_instances:
        raise InvalidArgument("Neither side is an instance's.", hint=_HINT)
    return sides


def inside(path: str) -> str:
    """The absolute form of a path in an instance; a final `/` or `/.` is kept."""
    plain = "/" + posixpath.normpath(path).lstrip("/")
    plain = "/" if plain in ("/.", "/..") else plain
    if path.endswith(("/.", "/./")) or path == ".":
        return posixpath.join(plain, ".")
    return posixpath.join(plain, "") if path.endswith("/") else plain


def is_contents(path: str) -> bool:
    """Whether the path means what is in the directory, and not the directory: `x/.`, `.`."""
    return posixpath.basename(path) == "."


def top_of(path: str) -> str:
    """What a copy of `path` is called; `.` for the contents of a directory, and for the root."""
    return "." if is_contents(path) else posixpath.basename(path.rstrip("/")) or "."


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a copy goes: to `name` in the directory `parent`, or, without a name, the contents
    of what is copied into `parent`."""

    parent: str
    name: str


def landing(top: str, source: Kind, path: str, there: Kind) -> Landing:
    """Where a `source` called `top` lands when it is copied to `path`, where `there` is.

    `top` `.`: the contents of a directory. Raises NoSuchPath, CopyFailed.
    """
    if there is Kind.DIRECTORY:
        return Landing(path, "" if top == "." else top)
    bare = path.rstrip("/") or "/"
    slash = path != bare or posixpath.basename(path) == "."
    if there is Kind.FILE and source is Kind.DIRECTORY:
        raise CopyFailed(
            f"{bare} is a file, and a directory is to be copied there.",
            hint="Name a directory, or a path where nothing is yet.",
        )
    if there is Kind.FILE and slash:
        raise CopyFailed(f"{bare} is a file, not a directory.", hint="Leave out the final slash.")
    if there is Kind.NOTHING and slash and source is not Kind.DIRECTORY:
        raise NoSuchPath(f"There is no directory {bare}.", hint="Make it first.")
    if posixpath.basename(bare) == ".":
        bare = posixpath.dirname(bare)
    return Landing(posixpath.dirname(bare) or ".", posixpath.basename(bare))
