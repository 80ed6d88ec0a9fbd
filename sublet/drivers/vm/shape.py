"""The shape of a machine: all that its memory image depends on. Pure.

A guest's memory goes on only in a machine that has the same devices in the same order, the same
RAM, the same QEMU below and the same kernel files: its shape. The key of a template is one's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

PROTOCOL = 1
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
    """One machine: bytes of memory and disk, and what is plugged into it; `image` the digest.

    `mode` and `options` are of what the guest has done by the time of the snapshot: nothing
    for a template, so they are left empty there.
    """

    platform: Platform
    image: str
    memory: int
    vcpus: int
    disk: int
    nics: int = 1
    volumes: tuple[tuple[int, bool], ...] = ()
    """Each volume's bytes, and whether it is read-only."""
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As it is written beside a memory image: equal texts are equal shapes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def key(self) -> str:
        """Names the template of this shape."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


def differences(one: str, other: str) -> list[str]:
    """What two texts of shapes do not have in common, as people call it."""
    try:
        left, right = _flat(json.loads(one)), _flat(json.loads(other))
    except (ValueError, AttributeError):
        return ["everything"]
    return [name for name in left if left[name] != right.get(name)] or ["something"]


def _flat(shape: dict[str, object]) -> dict[str, object]:
    platform = shape.get("platform")
    return {**shape, **(platform if isinstance(platform, dict) else {}), "platform": None}
