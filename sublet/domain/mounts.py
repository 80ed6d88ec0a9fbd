"""Mounts: host directories (`/host/path:/path/inside[:ro|:cow]`), volumes, memory."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import InvalidArgument
from sublet.domain.names import validate_name
from sublet.domain.units import parse_memory

_IGNORED = frozenset({"z", "Z", "cached", "consistent", "delegated"})
"""Options of `-v` for other hosts: SELinux labels, and how soon macOS sees what is written."""

_HINT = "Write /HOST/PATH:/PATH/INSIDE[:ro|:cow] or VOLUME:/PATH/INSIDE[:ro,nocopy]."
_COW = frozenset({"cow", "O"})
"""Copy-on-write, in our word and in Podman's (podman-run(1), --volume)."""

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"[0-7]{3,4}")
_LONG_HINT = "Write type=bind|volume|tmpfs,source=WHAT,target=/PATH/INSIDE[,readonly|,cow]."


_SHORT = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_KEYS = frozenset("type source target readonly cow tmpfs-size tmpfs-mode volume-nocopy".split())


class MountType(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """What an instance sees at `destination`: a host's directory or file (`source` its path), a
    volume (its name; empty for one without a name), or memory of `size` bytes, 0: half of the
    instance's; `mode` in octal. `nocopy`: an empty volume stays so, and does not get what the
    image has at `destination`. `cow`: what is written to a host's directory stays the instance's
    own, and goes with it; the host's directory is as it was."""

    source: str
    destination: str
    read_only: bool = False
    type: MountType = MountType.BIND
    size: int = 0
    mode: str = ""
    nocopy: bool = False
    cow: bool = False


def parse_mount(text: str) -> Mount:
    """The mount that one `-v` names: of a host's absolute path, of a volume by its name, or, where
    there is but one path, of a volume without a name."""
    fields = text.split(":")
    options = fields[2].split(",") if len(fields) == 3 else []
    if len(fields) > 3 or not set(options) <= {"ro", "rw", "nocopy", *_COW, *_IGNORED}:
        raise InvalidArgument(f"'{text}' is not a mount.", hint=_HINT)
    if len(fields) == 1:
        return Mount("", _destination(text, fields[0]), type=MountType.VOLUME)
    source, destination = fields[0], _destination(text, fields[1])
    if "/" not in source:
        source, kind = validate_volume(source), MountType.VOLUME
    else:
        source, kind = _absolute(text, source), MountType.BIND
    mount = Mount(
        source,
        destination,
        "ro" in options,
        kind,
        nocopy="nocopy" in options,
        cow=not _COW.isdisjoint(options),
    )
    _check_cow(mount)
    return mount


def validate_volume(name: str) -> str:
    """`name`, if it may name a volume: it is part of no path, and no path itself."""
    return name if is_anonymous(name) else validate_name(name, "a volume")


def is_anonymous(name: str) -> bool:
    """Whether a volume's name is one that nobody chose: 64 hexadecimal digits, as Docker's."""
    return bool(_ANONYMOUS.fullmatch(name))


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
        key = _SHORT.get(key, key)
        if key not in _KEYS:
            raise InvalidArgument(f"'{text}': there is no mount option '{key}'.", hint=_LONG_HINT)
        values[key] = value if equals else "true"
    kind = values.get("type", "volume")
    if kind not in tuple(MountType) or "target" not in values:
        raise InvalidArgument(f"'{text}' is not a mount.", hint=_LONG_HINT)
    mount = Mount(
        source=values.get("source", ""),
        destination=_destination(text, values["target"]),
        read_only=values.get("readonly", "false") in ("true", "1"),
        type=MountType(kind),
        size=parse_memory(values.get("tmpfs-size", "0")),
        mode=values.get("tmpfs-mode", ""),
        nocopy=values.get("volume-nocopy", "false") in ("true", "1"),
        cow=values.get("cow", "false") in ("true", "1"),
    )
    check_mount(mount)
    return mount


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
    mount = Mount("", _destination(text, path), read_only, MountType.TMPFS, size, mode)
    check_mount(mount)
    return mount


def check_mount(mount: Mount) -> None:
    """Raises InvalidArgument where a request's mount is none."""
    text = f"{mount.source}:{mount.destination}"
    if ":" in mount.destination or normal(mount.destination) != mount.destination:
        raise InvalidArgument(f"'{text}': the path inside is not a plain one.", hint=_HINT)
    _destination(text, mount.destination)
    if mount.type is MountType.BIND:
        _absolute(text, mount.source)
    elif mount.type is MountType.VOLUME and mount.source:
        validate_volume(mount.source)
    elif mount.type is MountType.TMPFS and (mount.source or mount.size < 0):
        raise InvalidArgument(f"'{text}' is no mount of memory.", hint=_LONG_HINT)
    _check_cow(mount)
    if mount.mode and not _MODE.fullmatch(mount.mode):
        raise InvalidArgument(
            f"'{mount.mode}' is not a directory's mode.", hint="Write it in octal, such as 1777."
        )


def _check_cow(mount: Mount) -> None:
    if not mount.cow:
        return
    if mount.type is not MountType.BIND:
        raise InvalidArgument(
            f"'{mount.destination}': only a directory of the host can be mounted copy-on-write.",
            hint="Write -v /HOST/PATH:/PATH/INSIDE:cow; of volumes and memory leave `cow` out.",
        )
    if mount.read_only:
        raise InvalidArgument(
            f"'{mount.destination}' cannot be both read-only and copy-on-write.",
            hint="Leave out `ro` or `cow`.",
        )


def check_mounts(mounts: Iterable[Mount]) -> None:
    """Raises InvalidArgument where a mount is none, or two have the same place."""
    seen: set[str] = set()
    for mount in mounts:
        check_mount(mount)
        if mount.destination in seen:
            raise InvalidArgument(
                f"Two mounts are to be at '{mount.destination}'.", hint="Leave one of them out."
            )
        seen.add(mount.destination)


def with_volumes(mounts: tuple[Mount, ...], paths: Iterable[str]) -> tuple[Mount, ...]:
    """`mounts`, and a volume without a name at each of the image's own `paths` (its VOLUMEs)
    where nothing else is mounted. What is no place for a mount is left out: an image must not
    be able to make itself unstartable by nonsense, nor mount over the kernel's files."""
    taken = {mount.destination for mount in mounts}
    found = []
    for path in paths:
        if path.startswith("/") and "\0" not in path and ".." not in path.split("/"):
            place = normal(path)
            if place not in taken and not is_system(place):
                found.append(Mount("", place, type=MountType.VOLUME))
                taken.add(place)
    return (*mounts, *found)


def normal(path: str) -> str:
    """The absolute path without needless slashes; POSIX would keep two at the beginning."""
    return "/" + posixpath.normpath(path).lstrip("/")


def is_system(path: str) -> bool:
    """Whether a normal path is the root, or lies where the kernel's file systems are."""
    return path.split("/")[1] in ("", "proc", "sys", "dev")


def in_order(mounts: Iterable[Mount]) -> list[Mount]:
    """Outer ones before those that lie in them; otherwise as they came."""
    return sorted(mounts, key=lambda mount: mount.destination.count("/"))
