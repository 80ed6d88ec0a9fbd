"""The shape of a machine: all that its memory image depends on. Pure.

A guest's memory goes on only in a machine that has the same devices in the same order, the same
RAM, the same QEMU below and the same kernel files: its shape. The key of a template is one's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

PROTOCOL = 3
"""Counted up whenever the machine's devices or what the daemon and the guest say to each other
change: memory images of before do not go on."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What all machines of one daemon have in common."""

    qemu: str
    """QEMU's version."""
    acceleration: str
    """`kvm CPU-MODEL` or `tcg`: under KVM the guest has seen the host's CPU."""
    kernel: str
    """`Kernel.identity`."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Shape:
    """One machine: bytes of memory and disk, and what is plugged into it; `image` the digest."""

    platform: Platform
    image: str
    memory: int
    vcpus: int
    disk: int
    nics: int = 1
    volumes: tuple[tuple[int, bool], ...] = ()
    """Each volume's bytes, and whether it is read-only."""

    @property
    def text(self) -> str:
        """As it is written beside a memory image: equal texts are equal shapes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def key(self) -> str:
        """Names the template of this shape."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


def kernel_of(text: str) -> str:
    """The identity of the kernel that a text of a shape names; empty where it names none."""
    return str(_read(text).get("kernel", ""))


def differences(one: str, other: str) -> list[str]:
    """What two texts of shapes do not have in common, as people call it."""
    left, right = _read(one), _read(other)
    if not left or not right:
        return ["everything"]
    return [name for name in left if left[name] != right.get(name)] or ["something"]


def _read(text: str) -> dict[str, object]:
    """A shape with its platform's fields beside its own; empty where the text is none."""
    try:
        shape = json.loads(text)
        platform = shape.get("platform")
    except (ValueError, AttributeError):
        return {}
    return {**shape, **(platform if isinstance(platform, dict) else {}), "platform": None}
