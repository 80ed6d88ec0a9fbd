"""Virtual machines: what of a request they can have, and what size they need."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

MEMORY_BLOCK = 128 * MIB
"""What a running guest's memory grows by: Linux takes no less of it on x86."""

MEMORY_SLOTS = 12
"""Modules of memory that may be plugged into a machine that runs; each time it is one to three."""

DEFAULT_DISK = 16 * GIB
"""Bytes of a disk where no size is said. It takes the room that is written."""


def vcpus(size: Size) -> int:
    """The CPUs that a guest sees: it has no fractions of one; what it may use of them is the
    host's to limit."""
    return max(1, math.ceil(size.cpus))


def booted(size: Size) -> Size:
    """What a machine of this size boots with: QEMU has memory in whole MiB."""
    return replace(size, memory=size.memory // MIB * MIB)


def most_vcpus(booted: int) -> int:
    """The CPUs that may be plugged into a guest that boots with so many. Each that is possible
    costs the guest about 0.6 MB, whether it is there or not: a small one pays for few."""
    return max(booted, min(MOST_VCPUS, 4 * booted))


def most_memory(booted: int) -> int:
    """The bytes that a guest may grow to that boots with so many. They cost it nothing; but all
    has to fit into the addresses of a CPU, which may be 36 bits only."""
    return booted + max(16 * GIB, booted)


MODULES = 3


def modules(more: int) -> tuple[int, ...]:
    """The sizes of the modules that so many bytes are plugged in as, in whole blocks. For each 64
    bytes of memory the guest's kernel needs one to keep account of it: in a module of one block
    they lie inside, and for any larger one the guest, which may have none to spare, must have
    them. So each prepares for the next."""
    found = []
    for most in (MEMORY_BLOCK, 32 * MEMORY_BLOCK, more):
        found.append(min(most, more))
        more -= found[-1]
    return tuple(size for size in found if size)


@dataclass(frozen=True, slots=True)
class Room:
    """What a running machine has, and may be given without a start: `memory` in bytes."""

    vcpus: int
    most_vcpus: int
    memory: int
    most_memory: int

    def next_vcpus(self, wanted: int) -> int:
        """As many of the CPUs `wanted` as it can have now; what it has where those are fewer."""
        return max(self.vcpus, min(wanted, self.most_vcpus))

    def next_memory(self, wanted: int) -> int:
        """As much of the memory `wanted` as it can have now, in whole blocks beyond its own."""
        more = (min(wanted, self.most_memory) - self.memory) // MEMORY_BLOCK * MEMORY_BLOCK
        return self.memory + max(0, more)


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
