"""What a machine's guest is told, as bytes. Pure.

The agent in the guest gets packets of the supervisors' protocol (`container/protocol.py`). A
request is longer than one packet may be: it comes in as many as it takes, all of one type, and an
empty one ends it. Together they are entries `key=value`, each ended by a zero byte. The other
side of this is `guest/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from sublet.domain.nics import Nic
from sublet.drivers.container import protocol

ENTROPY = 64
"""Random bytes that a guest is given: what the kernel's generator takes in at most (random(4))."""


class Say(IntEnum):
    """What a guest may be told besides what every supervisor understands (`protocol.Ask`)."""

    CONFIGURE = ord("C")
    RENEW = ord("N")
    EXECUTE = ord("e")
    QUIESCE = ord("Q")
    GO = ord("G")


class Hear(IntEnum):
    """What it may answer besides `protocol.Tell`."""

    READY = ord("R")
    DONE = ord("d")


class Mode(StrEnum):
    """What runs in a guest: one application under our init, or the image's own init."""

    APP = "app"
    INIT = "init"


@dataclass(frozen=True, slots=True)
class Command:
    """A process in a guest: `user[:group]` by names or numbers of the guest's image, further
    groups, limits as (name, soft, hard). `window`: rows and columns of its terminal. `tool`: a
    program of ours, in the instance's root."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    cwd: str = "/"
    tty: bool = False
    window: tuple[int, int] = (0, 0)
    groups: tuple[str, ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    tool: bool = False


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """Where the guest mounts the disk of a serial number; `fill`: an empty one first gets what the
    image has at that path."""

    serial: str
    path: str
    read_only: bool = False
    fill: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a guest from another that began as the same memory; an empty name, or machine id,
    is left as it is."""

    hostname: str = ""
    machine_id: str = ""
    nics: tuple[Nic, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Contents of files by their absolute paths: /etc/hosts, /etc/resolv.conf and the like."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What runs in a machine. `tmpfs` are (path, mount options), `shm` the bytes of /dev/shm (0:
    as the kernel has it); `root_disk`: the root is a partition of the disk `disk` itself."""

    command: Command
    identity: Identity
    mode: Mode = Mode.APP
    stdin: bool = False
    disks: tuple[GuestDisk, ...] = ()
    tmpfs: tuple[tuple[str, str], ...] = ()
    shm: int = 0
    read_only: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    root_disk: bool = False


def configure(guest: Guest, entropy: bytes, time: float) -> bytes:
    """The request that makes a booted guest the instance's own. `time` in seconds since 1970."""
    entries = [
        f"mode={guest.mode}",
        *_command(guest.command),
        *_identity(guest.identity),
        *_fresh(entropy, time),
        *(f"disk={_mount(disk)}" for disk in guest.disks),
        *(f"tmpfs={path} {options}" for path, options in guest.tmpfs),
        *(f"sysctl={name} {value}" for name, value in guest.sysctls.items()),
    ]
    flags = {"stdin": guest.stdin, "readonly": guest.read_only, "rootdisk": guest.root_disk}
    flags["tool"] = guest.command.tool
    entries += [f"{name}=1" for name, wanted in flags.items() if wanted]
    if guest.shm:
        entries.append(f"shm={guest.shm}")
    return _joined(entries)


def renew(
    entropy: bytes, time: float, identity: Identity | None = None, *, fork: bool = False
) -> bytes:
    """The request to a guest whose memory was restored: new randomness and the time, where it is
    now, and in a `fork` that it is another instance."""
    entries = [*_fresh(entropy, time), *(["fork=1"] if fork else [])]
    return _joined([*entries, *(_identity(identity) if identity else ())])


def execution(command: Command) -> bytes:
    """The request for a further process."""
    return _joined([*_command(command), *(["tool=1"] if command.tool else [])])


def quiesce(*, freeze: bool) -> bytes:
    """The request to fall silent; with `freeze` the file systems are written out and frozen."""
    return _joined(["fsfreeze=1"] if freeze else [])


def go(time: float) -> bytes:
    """The order to go on; `time`, in seconds since 1970, is what the guest has missed."""
    return _joined([_clock(time)])


def packets(kind: int, payload: bytes) -> list[bytes]:
    """The payload in packets of one type, and the empty one that ends it."""
    size = protocol.MESSAGE
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    return [bytes([kind]) + piece for piece in (*pieces, b"")]


def _joined(entries: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(entry) + b"\0" for entry in entries)


def _command(command: Command) -> Iterator[str]:
    yield from (f"arg={word}" for word in command.args)
    yield from (f"env={entry}" for entry in command.env)
    if command.user:
        yield f"user={command.user}"
    yield f"cwd={command.cwd or '/'}"
    if command.tty:
        yield "tty=1"
    if command.tty and any(command.window):
        yield "window={} {}".format(*command.window)
    yield from (f"group={group}" for group in command.groups)
    yield from (f"ulimit={name} {soft} {hard}" for name, soft, hard in command.ulimits)


def _mount(disk: GuestDisk) -> str:
    mode = "ro" if disk.read_only else "rw"
    return f"{disk.serial} {disk.path} {mode}" + (" fill" if disk.fill else "")


def _identity(identity: Identity) -> Iterator[str]:
    if identity.hostname:
        yield f"hostname={identity.hostname}"
    if identity.machine_id:
        yield f"machine-id={identity.machine_id}"
    for index, nic in enumerate(identity.nics):
        if nic.address:
            routes = f"{nic.gateway or '-'} {nic.metadata or '-'}"
            yield f"nic={index} {nic.mac} {nic.address}/{nic.prefix} {routes}"
    yield from (f"file={path}\n{content}" for path, content in identity.files.items())


def _fresh(entropy: bytes, time: float) -> Iterator[str]:
    yield f"entropy={entropy.hex()}"
    yield _clock(time)


def _clock(time: float) -> str:
    seconds, nanos = divmod(round(time * 1e9), 1_000_000_000)
    return f"time={seconds}.{nanos:09d}"
