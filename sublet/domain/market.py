"""The spot market: its price, how much is lacking, and whose capacity is taken back.

Pure: amounts, prices and times come in, decisions go out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sublet.domain.capacity import Amount

LEAST = 0.2
"""Of the on-demand price, what spot costs on an empty host."""

STEP = 0.001
"""Movements of the factor that are smaller are none."""


def usage(sold: Amount, total: Amount) -> float:
    """The share of the capacity that is sold, of whichever of vCPUs and memory is scarcer."""
    shares = [
        sold.cpus / total.cpus if total.cpus > 0 else 1.0,
        sold.memory / total.memory if total.memory > 0 else 1.0,
    ]
    return min(1.0, max(0.0, *shares))


def target(used: float) -> float:
    """The factor on the on-demand price that a share `used` by on-demand leads to: from 0.2 on an
    empty host to 1 on a full one."""
    return LEAST + (1 - LEAST) * min(1.0, max(0.0, used))


def moved(factor: float, to: float, seconds: float, lag: float) -> float:
    """The factor after `seconds` on its way to another: of the distance, 63 % goes in each `lag`
    seconds; at once where that is 0."""
    if lag <= 0:
        return to
    found = to + (factor - to) * math.exp(-max(0.0, seconds) / lag)
    return to if abs(found - to) < STEP else found


def quoted(factor: float) -> float:
    """The factor as it is asked for: in steps, so that a price holds for a while."""
    return round(factor, 3)


def shortage(asked: Amount, free: Amount, coming: Amount) -> Amount:
    """What is lacking for `asked` when what is `coming` back, by notices given, is there; nothing
    of what is not asked for."""
    return Amount(
        max(0.0, asked.cpus - free.cpus - coming.cpus) if asked.cpus else 0.0,
        max(0, asked.memory - free.memory - coming.memory) if asked.memory else 0,
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A spot instance that runs: what it holds, what it pays in dollars per hour, since when."""

    id: str
    amount: Amount
    price: float
    started: float = 0.0


def victims(candidates: Iterable[Candidate], need: Amount) -> tuple[str, ...] | None:
    """The cheapest set that frees `need`: the ids; None where even all of them do not.

    Cheapest is what pays least together; of equals the fewer, and the younger, who lose less. None
    is superfluous. Up to SEARCHED candidates the set is the cheapest one; beyond, or where the
    search takes too long, it may be dearer.
    """
    order = sorted(candidates, key=lambda c: (c.price, -c.started, c.id))
    if covers(order, need):
        found = _trimmed(_greedy(order, need), need)
        if len(order) <= SEARCHED:
            found = _trimmed(_Search(order, need, found).best, need)
        return tuple(candidate.id for candidate in found)
    return None


def covers(candidates: Iterable[Candidate], need: Amount) -> bool:
    """Whether they free `need` together."""
    cpus, memory = 0.0, 0
    for candidate in candidates:
        cpus += candidate.amount.cpus
        memory += candidate.amount.memory
    return cpus >= need.cpus - 1e-9 and memory >= need.memory


SEARCHED, EFFORT = 40, 4000
"""Candidates among which the cheapest set is searched for, and steps that this may take (some
ten milliseconds)."""


def _greedy(order: Sequence[Candidate], need: Amount) -> list[Candidate]:
    """One that is enough alone, or as many of the cheapest as it takes."""
    alone = next(([c] for c in order if covers([c], need)), None)
    several: list[Candidate] = []
    cpus, memory = 0.0, 0
    for candidate in order:
        if cpus >= need.cpus - 1e-9 and memory >= need.memory:
            break
        several.append(candidate)
        cpus, memory = cpus + candidate.amount.cpus, memory + candidate.amount.memory
    several = _trimmed(several, need)
    return alone if alone and _cost(alone) <= _cost(several) else several


def _trimmed(chosen: Sequence[Candidate], need: Amount) -> list[Candidate]:
    """Without those that are not needed, the dearest first."""
    kept = list(chosen)
    spare_cpus = sum(c.amount.cpus for c in kept) - need.cpus + 1e-9
    spare_memory = sum(c.amount.memory for c in kept) - need.memory
    for candidate in sorted(chosen, key=lambda c: (-c.price, c.started, c.id)):
        amount = candidate.amount
        if amount.cpus <= spare_cpus and amount.memory <= spare_memory:
            kept.remove(candidate)
            spare_cpus, spare_memory = spare_cpus - amount.cpus, spare_memory - amount.memory
    return kept


def _cost(chosen: Sequence[Candidate]) -> tuple[float, int]:
    return round(sum(c.price for c in chosen), 9), len(chosen)


class _Search:
    """Branch and bound over which of the candidates are taken, from a set that is enough."""

    def __init__(self, order: Sequence[Candidate], need: Amount, start: list[Candidate]) -> None:
        self._order = sorted(order, key=lambda c: (-c.price, c.started, c.id))
        self._need = need
        self.best, self._cost = start, _cost(start)
        self._left = EFFORT
        self._rest = [Amount()]
        for candidate in reversed(self._order):
            self._rest.append(self._rest[-1] + candidate.amount)
        self._rest.reverse()
        self._take(0, [], Amount(), 0.0)

    def _take(self, index: int, chosen: list[Candidate], freed: Amount, price: float) -> None:
        """Go on with the candidates from `index` on: with that one, and without it."""
        self._left -= 1
        if _enough(freed, self._need):
            if (cost := _cost(chosen)) < self._cost:
                self.best, self._cost = list(chosen), cost
            return
        if self._left < 0 or not _enough(freed + self._rest[index], self._need):
            return
        if (round(price, 9), len(chosen) + 1) >= self._cost:
            return
        candidate = self._order[index]
        chosen.append(candidate)
        self._take(index + 1, chosen, freed + candidate.amount, price + candidate.price)
        chosen.pop()
        self._take(self._different(index), chosen, freed, price)

    def _different(self, index: int) -> int:
        """The next candidate that is not as good as this one: without this one, without those."""
        this = self._order[index]
        while index < len(self._order) and (
            (self._order[index].price, self._order[index].amount) == (this.price, this.amount)
        ):
            index += 1
        return index


def _enough(freed: Amount, need: Amount) -> bool:
    return freed.cpus >= need.cpus - 1e-9 and freed.memory >= need.memory
