"""What a size costs: the host's own price list, in dollars per hour."""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.size import Size
from sublet.domain.units import GIB

MONTH = 730.0
"""Hours that a month is reckoned at, as clouds do."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per hour on demand: `cpu` for a vCPU, `memory` for a GiB. The defaults make 2x8
    cost what EC2's m7i.large does."""

    cpu: float = 0.0304
    memory: float = 0.005

    def hourly(self, size: Size) -> float:
        """What an instance of this size costs on demand, in dollars per hour."""
        return self.rate(size.cpus, size.memory)

    def rate(self, cpus: float, memory: int) -> float:
        """What so many vCPUs and bytes of memory cost on demand, in dollars per hour."""
        return cpus * self.cpu + memory / GIB * self.memory
