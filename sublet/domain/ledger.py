"""What a host has sold, kept up with every change: an admission does not count all instances."""

from __future__ import annotations

from sublet.domain.capacity import Amount, holds
from sublet.domain.instance import Instance
from sublet.domain.spec import Market

_FINE = 1_000_000
"""Parts of a vCPU that are counted: whole numbers do not drift."""


class Ledger:
    """The sums of what the instances of each market hold, and those that wait in a pool."""

    def __init__(self) -> None:
        self._cpus = dict.fromkeys(Market, 0)
        self._memory = dict.fromkeys(Market, 0)
        self._unclaimed = [0, 0]

    def change(self, old: Instance | None, new: Instance | None) -> None:
        """An instance came (`old` None), changed, or went (`new` None)."""
        for instance, sign in ((old, -1), (new, 1)):
            if instance is not None and holds(instance):
                spec = instance.spec
                cpus, memory = sign * round(spec.cpus * _FINE), sign * spec.memory
                self._cpus[spec.market] += cpus
                self._memory[spec.market] += memory
                if instance.pool:
                    self._unclaimed[0] += cpus
                    self._unclaimed[1] += memory

    def sold(self, market: Market) -> Amount:
        """What the instances of one market hold."""
        return Amount(self._cpus[market] / _FINE, self._memory[market])

    @property
    def demand(self) -> Amount:
        """What makes spot dearer: what on-demand instances hold that somebody has asked for. A
        sandbox that waits in a pool is nobody's yet, and who pays in full gets its room first."""
        cpus, memory = self._unclaimed
        return self.sold(Market.ON_DEMAND) - Amount(cpus / _FINE, memory)

    @property
    def held(self) -> Amount:
        """What all of them hold."""
        return Amount(sum(self._cpus.values()) / _FINE, sum(self._memory.values()))
