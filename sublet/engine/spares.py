"""The room that ready sandboxes of pools hold: nobody uses it, so whoever starts on demand may
have it at once."""

from __future__ import annotations

from collections.abc import Callable

from sublet.domain.capacity import Amount, holds
from sublet.domain.instance import Instance
from sublet.domain.pools import given_up, is_ready
from sublet.drivers.store.instances import InstanceStore
from sublet.engine.claims import total
from sublet.engine.holdings import amount_of


class Spares:
    """Those of one host. `remove` begins to delete one, whose id it takes out of `going` if that
    fails."""

    def __init__(self, rows: InstanceStore) -> None:
        self._rows = rows
        self.going: set[str] = set()
        """Ids of those that are being deleted."""
        self.remove: Callable[[Instance], None] = lambda row: None

    def ready(self) -> list[Instance]:
        """Those that wait, the oldest first."""
        return [r for r in self._rows.pooled() if is_ready(r) and r.id not in self.going]

    def room(self) -> Amount:
        """What they hold."""
        return total(amount_of(row.spec) for row in self.ready())

    def coming(self) -> Amount:
        """What those that are being deleted hold yet."""
        rows = [self._rows.get(instance_id) for instance_id in self.going]
        return total(amount_of(row.spec) for row in rows if row and holds(row))

    def give(self, missing: Amount) -> Amount:
        """Begin to delete as many as it takes; the room that comes of it, which may be less."""
        rows = {row.id: row for row in self.ready()}
        ids = given_up({key: amount_of(row.spec) for key, row in rows.items()}, missing)
        for instance_id in ids:
            self.going.add(instance_id)
            self.remove(rows[instance_id])
        return total(amount_of(rows[instance_id].spec) for instance_id in ids)
