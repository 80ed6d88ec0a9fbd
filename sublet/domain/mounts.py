"""Mounts: host directories (`/host/path:/path/inside[:ro]`), volumes, memory."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_memory

_HINT = "Write /HOST/PATH:/PATH/INSIDE[:ro]."
_LONG_HINT = "Write type=bind|volume|tmpfs,source=WHAT,target=/PATH/INSIDE[,readonly]."


class MountType(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """What an instance sees at `destination`: a host's directory or file (`source` its path), a
    volume (its name; empty for one without a name), or memory of `size` bytes, 0: half of the
    instance's; `mode` in octal."""

    source: str
    destination: str
    read_only: bool = False
    type: MountType = MountType.BIND
    size: int = 0
    mode: str = ""


def parse_mount(text: str) -> Mount:
    """The mount that one `-v` names. Both paths are absolute and free of `..`."""
    fields = text.split(":")
    if len(fields) not in (2, 3) or (len(fields) == 3 and fields[2] not in ("ro", "rw")):
        raise InvalidArgument(f"'{text}' is not a mount.", hint=_HINT)
    source = _absolute(text, fields[0])
    return Mount(source, _destination(text, fields[1]), fields[-1] == "ro")


def _absolute(text: str, path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidArgument(f"'{text}': '{path}' is not an absolute path.", hint=_HINT)
    return normal(path)


def _destination(text: str, path: str) -> str:
    destination = _absolute(text, path)
    if is_system(destination):
        raise InvalidArgument(f"'{text}': nothing may be mounted over '{destination}'.", hint=_HINT)
    return destination


def parse_long_mount(text: str) -> Mount:
    """`type=bind,source=/srv,target=/data,readonly`: what one `--mount` names."""
    values: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(
            key, key
        )
        if key not in ("type", "source", "target", "readonly", "tmpfs-size", "tmpfs-mode"):
            raise InvalidArgument(f"'{text}': there is no mount option '{key}'.", hint=_LONG_HINT)
        values[key] = value if equals else "true"
    kind = values.get("type", "volume")
    if kind not in tuple(MountType) or "target" not in values:
        raise InvalidArgument(f"'{text}' is not a mount.", hint=_LONG_HINT)
    return Mount(
        source=values.get("source", ""),
        destination=_destination(text, values["target"]),
        read_only=values.get("readonly", "false") in ("true", "1"),
        type=MountType(kind),
        size=parse_memory(values.get("tmpfs-size", "0")),
        mode=values.get("tmpfs-mode", ""),
    )


def parse_tmpfs(text: str) -> Mount:
    """`/path[:size=64m,mode=1777,ro]`: what one `--tmpfs` names."""
    path, _, options = text.partition(":")
    size, mode, read_only = 0, "", False
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            size = parse_memory(value)
        elif key == "mode":
            mode = value
        elif key in ("ro", "rw"):
            read_only = key == "ro"
        else:
            raise InvalidArgument(
                f"'{text}': there is no tmpfs option '{key}'.",
                hint="Write /path:size=64m,mode=700.",
            )
    return Mount("", _destination(text, path), read_only, MountType.TMPFS, size, mode)


def check_mount(mount: Mount) -> None:
    """Raises InvalidArgument where a request's mount is none."""
    if mount.type is MountType.BIND:
        parse_mount(f"{mount.source}:{mount.destination}:{'ro' if mount.read_only else 'rw'}")


def normal(path: str) -> str:
    """The absolute path without needless slashes; POSIX would keep two at the beginning."""
    return "/" + posixpath.normpath(path).lstrip("/")


def is_system(path: str) -> bool:
    """Whether a normal path is the root, or lies where the kernel's file systems are."""
    return path.split("/")[1] in ("", "proc", "sys", "dev")


def in_order(mounts: Iterable[Mount]) -> list[Mount]:
    """Outer ones before those that lie in them; otherwise as they came."""
    return sorted(mounts, key=lambda mount: mount.destination.count("/"))
