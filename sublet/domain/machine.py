"""Virtual machines: what of a request they can have, and what size they need."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import MountType
from sublet.domain.networks import Mode
from sublet.domain.size import Size
from sublet.domain.units import GIB, MIB, format_bytes

if TYPE_CHECKING:
    from sublet.domain.spec import InstanceSpec

LEAST_MEMORY = 128 * MIB
"""What a guest's kernel and its page tables leave room for anything in."""

MOST_VCPUS = 64

DEFAULT_DISK = 16 * GIB
"""Bytes of a disk where no size is said. It takes the room that is written."""


def vcpus(size: Size) -> int:
    """The CPUs that a guest sees: it has no fractions of one; what it may use of them is the
    host's to limit."""
    return max(1, math.ceil(size.cpus))


_INITS = frozenset({"init", "systemd", "openrc-init", "runit-init", "s6-svscan", "dinit"})
_BINARIES = frozenset({"/", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib/systemd"})


def boots(args: Sequence[str]) -> bool:
    """Whether a command is an init system: it is the guest's first process then, not a child of
    ours, and has the machine to itself."""
    directory, name = posixpath.split(args[0]) if args else ("", "")
    return name in _INITS and directory in _BINARIES | {"/lib/systemd"}


def check_machine(spec: InstanceSpec) -> None:
    """Raises InvalidArgument for what a VM cannot have: all that is shared with the host's kernel,
    or limits what a process may ask of it."""
    if spec.memory and spec.memory < LEAST_MEMORY:
        raise InvalidArgument(
            f"A VM does not boot in {format_bytes(spec.memory)} of memory.",
            hint=f"Give it --memory {LEAST_MEMORY // MIB}m or more.",
        )
    if spec.cpus > MOST_VCPUS:
        raise InvalidArgument(f"A VM has {MOST_VCPUS} vCPUs at most.")
    for flag, given, hint in _foreign(spec):
        if given:
            raise InvalidArgument(f"A VM cannot have {flag}.", hint=hint)


def _foreign(spec: InstanceSpec) -> list[tuple[str, bool, str]]:
    """Flags that mean something to containers alone, whether they were given, and what to do."""
    kernel = "It has a kernel of its own, and root in it has all rights: leave it out."
    bind = any(mount.type is MountType.BIND for mount in spec.mounts)
    mode = Mode.of(spec.network)
    return [
        (
            "directories of the host",
            bind,
            "Use a volume (-v NAME:/PATH), or copy: sublet cp DIR INSTANCE:/PATH.",
        ),
        ("--device", bool(spec.devices), "It sees none of the host's devices: run a container."),
        ("--cap-add and --cap-drop", bool(spec.cap_add or spec.cap_drop), kernel),
        ("a seccomp profile", bool(spec.seccomp), kernel),
        (
            f"--network {spec.network}",
            mode in (Mode.HOST, Mode.CONTAINER),
            "Put both on one network: sublet network create NAME, then --network NAME.",
        ),
    ]
