"""Rounds in turn, their medians, and the rows that are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Peer = Callable[[], None]
"""Does the measured thing once; raises where it fails."""

Sampled = Callable[[], float]
"""As a peer, which times itself: milliseconds, of that part which counts."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of each round."""

    name: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def p90(self) -> float:
        return sorted(self.rounds)[min(len(self.rounds) - 1, round(0.9 * (len(self.rounds) - 1)))]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value: of which benchmark, what, and in which unit."""

    bench: str
    what: str
    value: float
    unit: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": self.bench,
            "what": self.what,
            "value": round(self.value, 3),
            "unit": self.unit,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Aim:
    """A number of the design, section 12, beside what was measured. `most`: less is better."""

    what: str
    value: float
    unit: str
    aim: float
    most: bool

    @property
    def met(self) -> bool:
        return self.value <= self.aim if self.most else self.value >= self.aim

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "value": round(self.value, 3),
            "unit": self.unit,
            "aim": self.aim,
            "bound": "at most" if self.most else "at least",
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What one benchmark found."""

    rows: list[Row]
    aims: list[Aim]


SETTLE = 0.25
"""Seconds between peers."""


def measure(peers: Mapping[str, Peer], rounds: int, warm_up: int = 2) -> dict[str, Timing]:
    """As `sample`, of peers of which all that they do is timed."""
    return sample({name: _timed(peer) for name, peer in peers.items()}, rounds, warm_up)


def _timed(peer: Peer) -> Sampled:
    def once() -> float:
        start = time.perf_counter()
        peer()
        return (time.perf_counter() - start) * 1000

    return once


def sample(peers: Mapping[str, Sampled], rounds: int, warm_up: int = 2) -> dict[str, Timing]:
    """Each peer once a round, in turn, so that a busy host is unjust to all alike.

    Whoever begins changes with every round, and each begins when the one before has settled: the
    kernel takes namespaces down behind the back of who made them, and whoever comes next would
    pay. The first `warm_up` rounds are not counted.
    """
    names = list(peers)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(SETTLE)
            elapsed = peers[name]()
            if number >= 0:
                taken[name].append(elapsed)
    return {name: Timing(name, tuple(values)) for name, values in taken.items()}


def rows(bench: str, timings: Mapping[str, Timing]) -> list[Row]:
    """Medians, the quickest first; the note has the 90th percentile."""
    found = sorted(timings.values(), key=lambda timing: timing.median)
    return [Row(bench, t.name, t.median, "ms", f"p90 {t.p90:.1f} ms") for t in found]


def ratio(
    what: str, timings: Mapping[str, Timing], over: str, under: str, aim: float, *, most: bool
) -> list[Aim]:
    """How often `under` goes into `over`; nothing where one of them was not measured."""
    if over not in timings or under not in timings:
        return []
    return [Aim(what, timings[over].median / timings[under].median, "x", aim, most)]
