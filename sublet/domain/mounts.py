"""Bind mounts: `/host/path:/path/inside[:ro]`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument

_HINT = "Write /HOST/PATH:/PATH/INSIDE[:ro]."


@dataclass(frozen=True, slots=True)
class Mount:
    """A host directory or file that an instance sees at `destination`."""

    source: str
    destination: str
    read_only: bool = False


def parse_mount(text: str) -> Mount:
    """The mount that one `-v` names. Both paths are absolute and free of `..`."""
    fields = text.split(":")
    if len(fields) not in (2, 3) or (len(fields) == 3 and fields[2] not in ("ro", "rw")):
        raise InvalidArgument(f"'{text}' is not a mount.", hint=_HINT)
    source, destination = fields[0], fields[1]
    for path in (source, destination):
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise InvalidArgument(f"'{text}': '{path}' is not an absolute path.", hint=_HINT)
    destination = normal(destination)
    if is_system(destination):
        raise InvalidArgument(f"'{text}': nothing may be mounted over '{destination}'.", hint=_HINT)
    return Mount(normal(source), destination, fields[-1] == "ro")


def normal(path: str) -> str:
    """The absolute path without needless slashes; POSIX would keep two at the beginning."""
    return "/" + posixpath.normpath(path).lstrip("/")


def is_system(path: str) -> bool:
    """Whether a normal path is the root, or lies where the kernel's file systems are."""
    return path.split("/")[1] in ("", "proc", "sys", "dev")


def in_order(mounts: Iterable[Mount]) -> list[Mount]:
    """Outer ones before those that lie in them; otherwise as they came."""
    return sorted(mounts, key=lambda mount: mount.destination.count("/"))
