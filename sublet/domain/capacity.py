"""What a host can sell, what it has sold, and whether one more fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sublet.domain.errors import InsufficientCapacity
from sublet.domain.instance import HELD, Instance, State
from sublet.domain.size import Size
from sublet.domain.spec import Market
from sublet.domain.units import format_bytes, format_cpus

HOLDING = HELD | {State.PENDING}
"""States in which an instance holds its size, if it is to run."""


def holds(instance: Instance) -> bool:
    """Whether an instance holds its size: it runs, or is about to. A fork that is not to run is
    pending as well, while its files are copied."""
    return instance.state in HELD or (instance.state is State.PENDING and instance.wanted)


@dataclass(frozen=True, slots=True)
class Amount:
    """vCPUs and bytes of memory."""

    cpus: float = 0.0
    memory: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpus + other.cpus, self.memory + other.memory)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cpus - other.cpus, self.memory - other.memory)


ROUNDING = 1e-9
"""Of a vCPU, what sums of fractions may be off by."""


def fits(asked: Size | Amount, free: Amount) -> bool:
    """Whether an instance of this size, or so much more for one, fits into `free`: of what is not
    asked for there may be none."""
    return not (_lacks_memory(asked, free) or _lacks_cpus(asked, free))


def _lacks_memory(asked: Size | Amount, free: Amount) -> bool:
    return asked.memory > max(0, free.memory)


def _lacks_cpus(asked: Size | Amount, free: Amount) -> bool:
    return asked.cpus > max(0.0, free.cpus) + ROUNDING


def rentable(cpus: int, memory: int, overcommit: float, reserve: int) -> Amount:
    """What a host of `cpus` and `memory` can sell: memory is never sold twice."""
    return Amount(cpus * overcommit, max(0, memory - reserve))


def sold(instances: Iterable[Instance], market: Market) -> Amount:
    """What the instances of one market hold."""
    holding = [i for i in instances if holds(i) and i.spec.market == market]
    return Amount(sum(i.spec.size.cpus for i in holding), sum(i.spec.size.memory for i in holding))


def admit(size: Size | Amount, free: Amount) -> None:
    """Raises InsufficientCapacity unless an instance of this size, or so much more for one, fits
    into `free`."""
    if _lacks_memory(size, free):
        raise InsufficientCapacity(
            f"The host has {format_bytes(max(0, free.memory))} of memory free, "
            f"{format_bytes(size.memory)} are asked for."
        )
    if _lacks_cpus(size, free):
        raise InsufficientCapacity(
            f"The host has {format_cpus(max(0.0, free.cpus))} free, {size.cpus:g} asked for."
        )
