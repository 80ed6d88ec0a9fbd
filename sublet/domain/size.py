"""What an instance is sold: vCPUs, memory, disk."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import GIB, MIB, TIB, check_memory, format_bytes

MINIMUM_CPUS, MINIMUM_DISK = 0.01, 16 * MIB
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)x([0-9]{1,9}(?:\.[0-9]+)?)")


def check_disk(count: int) -> int:
    """`count` bytes, if a file system can be made of them; else raises InvalidArgument."""
    if not MINIMUM_DISK <= count <= 16 * TIB:
        wrong = "small" if count < MINIMUM_DISK else "large"
        raise InvalidArgument(
            f"A disk of {count} bytes is too {wrong}.", hint="Give from 16m to 16t, such as 2g."
        )
    return count


def check_growth(old: int, new: int) -> int:
    """`new` bytes, if a disk of `old` can get them; else raises InvalidArgument."""
    if new < old:
        raise InvalidArgument(
            f"A disk of {format_bytes(old)} cannot become smaller.", hint="Give a larger size."
        )
    return new


@dataclass(frozen=True, slots=True)
class Size:
    """A limit as well as a promise: `cpus` in vCPUs, `memory` and `disk` in bytes.

    A `disk` of 0 is limited by the host's free space alone.
    """

    cpus: float
    memory: int
    disk: int = 0

    def __post_init__(self) -> None:
        if not self.cpus >= MINIMUM_CPUS:  # the least that the kernel can limit to (CFS bandwidth)
            raise InvalidArgument(
                f"{self.cpus:g} vCPUs are too few.", hint=f"Give at least {MINIMUM_CPUS}."
            )
        check_memory(self.memory)
        if self.disk:
            check_disk(self.disk)

    def __str__(self) -> str:
        gib = self.memory / GIB
        return f"{self.cpus:g}x{gib:.4g}" if gib < 1000 else f"{self.cpus:g}x{gib:.0f}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """`2x4`: 2 vCPUs and 4 GiB; fractions allowed."""
        match = _SIZE.fullmatch(text.strip())
        if not match:
            raise InvalidArgument(
                f"'{text}' is not a size.", hint="Write vCPUs x GiB, such as 2x4 or 0.5x0.25."
            )
        return cls(float(match[1]), int(float(match[2]) * GIB))
