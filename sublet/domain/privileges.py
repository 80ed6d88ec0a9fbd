"""What an instance may have beyond the defaults: capabilities, devices, sysctls, limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument

CAPABILITIES = tuple(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE".split()
)
"""Every capability, by its number (capabilities(7))."""

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)
"""Docker's default set without MKNOD and NET_RAW."""

_ULIMIT = re.compile(r"([a-z]+)=(-1|unlimited|[0-9]+)(?::(-1|unlimited|[0-9]+))?")
ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)
"""Names as Docker and setrlimit(2) have them."""

_PATH = re.compile(r"/dev(?:/[^/\0]+)+")

_TAKEN = frozenset(
    "console fd full init mqueue null ptmx pts random shm stderr stdin stdout tty urandom "
    "zero".split()
)
"""Names below /dev that every instance has already."""

_SYSCTLS = re.compile(
    r"net(?:\.[a-z0-9_/-]+)+|kernel\.(?:shm(?:all|max|mni|_rmid_forced)|msg(?:max|mnb|mni)|sem)"
    r"|fs\.mqueue\.[a-z_]+"
)
"""Those that belong to the instance's own namespaces."""


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit (setrlimit(2)); -1: unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host, at `destination` inside; `access` of `r`, `w`, `m`."""

    source: str
    destination: str
    access: str = "rwm"


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`. Raises InvalidArgument."""
    match = _ULIMIT.fullmatch(text)
    if not match or match[1] not in ULIMITS:
        raise InvalidArgument(
            f"'{text}' is not a resource limit.", hint="Write --ulimit nofile=1024[:2048]."
        )
    soft = _limit(match[2])
    return Ulimit(match[1], soft, _limit(match[3]) if match[3] else soft)


def _limit(text: str) -> int:
    return -1 if text in ("-1", "unlimited") else int(text)


def parse_device(text: str) -> Device:
    """`/dev/fuse[:/dev/inside[:rwm]]`. Raises InvalidArgument."""
    fields = text.split(":")
    if len(fields) == 2 and not fields[1].startswith("/"):
        fields = [fields[0], fields[0], fields[1]]
    source, destination, access = [*fields, *[fields[0], "rwm"][len(fields) - 1 :]][:3]
    device = Device(source, destination, access)
    if len(fields) > 3:
        raise _no_device(text)
    _check_device(device)
    return device


def capability(text: str) -> str:
    """`NET_ADMIN`, `cap_net_admin` or `ALL` in capabilities(7)'s words. Raises InvalidArgument."""
    name = text.upper().removeprefix("CAP_")
    if name != "ALL" and name not in CAPABILITIES:
        raise InvalidArgument(
            f"There is no capability '{text}'.", hint="capabilities(7) lists them, such as NET_RAW."
        )
    return name if name == "ALL" else f"CAP_{name}"


def capabilities(added: Iterable[str], dropped: Iterable[str]) -> tuple[str, ...]:
    """The capabilities that are asked for: the defaults less `dropped`, then `added`, as Docker
    has it; `ALL` in either means every one. Names as capabilities(7) has them, in its order."""
    more, less = {capability(name) for name in added}, {capability(name) for name in dropped}
    every = {f"CAP_{name}" for name in CAPABILITIES}
    if "ALL" in more:
        wanted = every - less
    elif "ALL" in less:
        wanted = more
    else:
        wanted = (set(DEFAULT_CAPABILITIES) - less) | more
    return tuple(name for name in (f"CAP_{short}" for short in CAPABILITIES) if name in wanted)


def check_privileges(
    added: Iterable[str],
    dropped: Iterable[str],
    sysctls: Mapping[str, str],
    devices: Iterable[Device],
    ulimits: Iterable[Ulimit],
) -> None:
    """Raises InvalidArgument for what does not exist or would reach beyond the instance."""
    for name in (*added, *dropped):
        capability(name)
    for name, value in sysctls.items():
        if not _SYSCTLS.fullmatch(name):
            raise InvalidArgument(
                f"The sysctl '{name}' is not the instance's own.",
                hint="Those of net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* are.",
            )
        if not re.fullmatch(r"[ -~\t]{1,1000}", value):
            raise InvalidArgument(f"The value of {name} is not a line of text.")
    for device in devices:
        _check_device(device)
    for limit in ulimits:
        if limit.name not in ULIMITS or limit.soft < -1 or limit.hard < -1:
            raise InvalidArgument(f"'{limit.name}' is not a resource limit.")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InvalidArgument(
                f"{limit.name}: the soft limit is above the hard one.",
                hint="Write --ulimit NAME=SOFT:HARD.",
            )


def _check_device(device: Device) -> None:
    paths = (device.source, device.destination)
    sound = all(_PATH.fullmatch(p) and not {"..", "."} & set(p.split("/")) for p in paths)
    if not sound or not device.access or set(device.access) - set("rwm"):
        raise _no_device(device.source)
    if device.destination.split("/")[2] in _TAKEN:
        raise InvalidArgument(
            f"Every instance has its own {device.destination}.",
            hint="Give the device another name inside: --device /dev/X:/dev/Y.",
        )


def _no_device(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"'{text}' is not a device to pass on.", hint="Write --device /dev/NAME[:/dev/NAME[:rwm]]."
    )
