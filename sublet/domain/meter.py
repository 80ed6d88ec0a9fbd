"""What is charged: every second that an instance runs, at the price it runs at.

A start is charged in segments; a new one begins where the price, the size or the market changes.
Seconds are counted by a clock that nobody sets and that stands still while the host sleeps
(CLOCK_MONOTONIC); the wall clock only says when they were. Pure: clocks are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sublet.domain.instance import HELD, Instance
from sublet.domain.size import Size
from sublet.domain.spec import Market

MINIMUM = 60.0
"""Seconds that each start is charged at least, as on EC2."""

HOUR = 3600.0

FREE = 3600.0
"""Seconds of a spot instance's first hour: reclaimed by the host in it, it is free, as on EC2."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A look at the clocks: `wall` in seconds since the epoch, `monotonic` in seconds since the
    host's start, which `boot` names (proc(5), random/boot_id)."""

    wall: float
    monotonic: float
    boot: str


@dataclass(frozen=True, slots=True)
class Charge:
    """One segment. `run` is the id of its start's first segment; `price` and `on_demand` in
    dollars per hour; `began` when it began; `seconds` None while it goes on; `reclaimed`: the host
    took its capacity back. Its first `priced` seconds cost `spent` dollars, at earlier prices."""

    id: int
    run: int
    instance: str
    name: str
    image: str
    market: Market
    cpus: float
    memory: int
    price: float
    on_demand: float
    began: Reading
    seconds: float | None = None
    reclaimed: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    priced: float = 0.0
    spent: float = 0.0

    @property
    def size(self) -> Size:
        """What it was sold."""
        return Size(self.cpus, self.memory)


def runs(instance: Instance | None) -> bool:
    """Whether it is charged: it runs, is paused, or is about to end."""
    return instance is not None and instance.state in HELD


def opened(instance: Instance, price: float, on_demand: float, began: Reading) -> Charge:
    """The first segment of a start, without ids yet."""
    spec = instance.spec
    return Charge(
        id=0,
        run=0,
        instance=instance.id,
        name=instance.name,
        image=instance.image,
        market=spec.market,
        cpus=spec.cpus,
        memory=spec.memory,
        price=price,
        on_demand=on_demand,
        began=began,
        labels=spec.labels,
    )


def same_terms(charge: Charge, other: Charge) -> bool:
    """Whether one segment can go on for both."""
    return _terms(charge) == _terms(other)


def cost(charge: Charge, seconds: float) -> float:
    """Dollars for a segment that is charged for so many seconds."""
    return charge.spent + max(0.0, seconds - charge.priced) / HOUR * charge.price


def goes_on(charge: Charge, other: Charge) -> bool:
    """Whether a segment takes in one that follows it: nothing but the price is another, in the
    same hour. A spot price may move every few seconds; an instance has a row an hour all the
    same."""
    same = _terms(replace(charge, price=other.price)) == _terms(other)
    return same and charge.began.wall // HOUR == other.began.wall // HOUR


def repriced(charge: Charge, price: float, now: Reading) -> Charge:
    """The segment, which goes on at another price."""
    seconds = lasted(charge, now)
    return replace(charge, price=price, priced=seconds, spent=cost(charge, seconds))


def _terms(charge: Charge) -> tuple[object, ...]:
    return charge.market, charge.cpus, charge.memory, charge.price, charge.on_demand


def lasted(charge: Charge, now: Reading) -> float:
    """Seconds that a segment has gone on for."""
    if charge.seconds is not None:
        return charge.seconds
    if charge.began.boot == now.boot:
        return max(0.0, now.monotonic - charge.began.monotonic)
    return max(0.0, now.wall - charge.began.wall)


def ended(charge: Charge, end: float, now: Reading, seen: Reading | None) -> float:
    """Seconds of a segment that ended at the wall clock's `end`, which is known `now`; it went on
    when the meter was last `seen`. Whatever the clock was set to meanwhile, never less than what
    is known for sure, and never more than there was time for."""
    sure, since = 0.0, charge.began
    if seen and seen.boot == charge.began.boot and seen.monotonic > charge.began.monotonic:
        sure, since = lasted(charge, seen), seen
    least = max(sure, charge.priced)  # it went on when its price moved, too
    if charge.began.boot == now.boot:
        most = lasted(charge, now)
        return min(max(most - (now.wall - end), least), most)
    return max(sure + max(0.0, end - since.wall), least)
