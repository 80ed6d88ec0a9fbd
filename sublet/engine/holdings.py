"""What the spot instances of one host hold, and how much of it is taken back for whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from sublet.domain.capacity import Amount, holds
from sublet.domain.instance import Instance, State
from sublet.domain.market import Candidate, victims
from sublet.domain.notice import Notice, Reason
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.instances import InstanceStore
from sublet.engine.claims import total
from sublet.engine.notices import Notices

_ENDING = frozenset({State.STOPPING, State.HIBERNATING})


def amount_of(spec: InstanceSpec) -> Amount:
    """What an instance of this request holds."""
    return Amount(spec.cpus, spec.memory)


class Holdings:
    """`price` tells what a spot instance pays now; `notice` is the seconds between a reclaim's
    announcement and its execution."""

    def __init__(
        self,
        rows: InstanceStore,
        notices: Notices,
        price: Callable[[InstanceSpec], float],
        notice: float,
    ) -> None:
        self._rows, self._notices = rows, notices
        self._price, self._notice = price, notice

    # Looked at

    def every(self, states: Iterable[State]) -> list[Instance]:
        """The spot instances that are in one of the states."""
        return [row for row in self._rows.all() if row.spec.spot and row.state in states]

    def running(self) -> list[Instance]:
        """The spot instances that hold room."""
        return [row for row in self._rows.all() if row.spec.spot and holds(row)]

    def candidates(self) -> list[Candidate]:
        """The spot instances that could be given notice."""
        return [
            Candidate(row.id, amount_of(row.spec), self._price(row.spec), row.started)
            for row in self.running()
            if not self._leaves(row)
        ]

    def _leaves(self, row: Instance) -> bool:
        return row.state in _ENDING or self._notices.real(row.id) is not None

    def leaving(self) -> list[Instance]:
        """The spot instances whose room will be free; nobody relies on one that is overdue."""
        rows = [row for row in self.running() if self._leaves(row)]
        return [row for row in rows if not self._notices.overdue(row.id)]

    def overdue(self) -> list[Instance]:
        """Those that should have gone long ago."""
        return [row for row in self.running() if self._notices.overdue(row.id)]

    def coming(self) -> Amount:
        """The room that will be free, by notices given and ends begun."""
        return total(amount_of(row.spec) for row in self.leaving())

    def reclaimable(self) -> Amount:
        """All of it."""
        return total(candidate.amount for candidate in self.candidates()) + self.coming()

    # Taken back

    def give_way(self, need: Amount) -> bool:
        """Give notice to as many as it takes to free `need`; False, and nothing is done, where
        all of them are not enough."""
        found = victims(self.candidates(), need)
        if found is None:
            return False
        self._give(found, Reason.CAPACITY)
        return True

    def relieve(self, part: float) -> list[Notice]:
        """Take back a part of what those without a notice hold; the notices."""
        found = self.candidates()
        held = total(candidate.amount for candidate in found)
        need = Amount(held.cpus * part, math.ceil(held.memory * part))
        return self._give(victims(found, need) or (), Reason.PRESSURE)

    def _give(self, ids: Iterable[str], reason: Reason) -> list[Notice]:
        rows = [row for row in map(self._rows.get, ids) if row]
        return self._notices.give(rows, reason, self._notice)
