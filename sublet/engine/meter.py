"""The meter: what runs is charged, in the same transaction that writes that it runs.

So a daemon that is killed at any moment leaves rows of which each running instance has one
segment that goes on, and no other has one: no second is lost, and none is charged twice.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace

from sublet.domain import bill, meter, pools
from sublet.domain.instance import Instance
from sublet.domain.meter import Charge, Reading
from sublet.domain.spec import InstanceSpec, Market
from sublet.drivers import clock
from sublet.drivers.store.charges import ChargeStore
from sublet.drivers.store.instances import InstanceStore

SEEN = "metered"
"""The setting that remembers when the meter last looked at its clocks."""

INTERVAL = 30.0
"""Seconds between those looks: what a power cut takes off the bill at most."""

Price = Callable[[InstanceSpec], float]


class Meter:
    """Charges the instances of one daemon. `price` is what one of a spec pays now, `on_demand`
    what it would pay on demand, both in dollars per hour."""

    def __init__(
        self,
        store: InstanceStore,
        charges: ChargeStore,
        price: Price,
        on_demand: Price,
        read: Callable[[], Reading] = clock.read,
    ) -> None:
        self._store, self.charges = store, charges
        self._price, self._on_demand, self._read = price, on_demand, read
        text = store.setting(SEEN)
        self._before = Reading(**json.loads(text)) if text else None
        """When an earlier daemon looked last."""
        self._recovering = True
        self.turned: Callable[[Charge | None], None] = lambda ended: None
        """Is told, in the transaction, that other things are charged, or otherwise; of a start
        that has ended, its last segment."""
        self.undone: Callable[[], None] = lambda: None
        """Is told that what was charged is not what it was told."""
        store.witness = self.changed
        store.undone = self._undone

    def changed(self, old: Instance | None, new: Instance | None) -> None:
        """A row is being written: in its transaction, begin or end what is charged."""
        row = new or old
        charge = self.charges.open.get(row.id) if row else None
        if new is not None and meter.runs(new):
            if charge is None:
                self._begin(new)
            elif old is not None and old.pool and not new.pool:
                self._hand_over(charge, old, new)
            elif (charge.cpus, charge.memory, charge.market) != _sold(new.spec):
                self._turn(charge, new)
        elif charge is not None and row is not None:
            now = self._read()
            told = self.seen(row) if row.exit_code is None else row.finished
            self.charges.end(charge, meter.ended(charge, told, now, self._before))
            self.turned(charge)
        if new is not None and old is not None and new.spec is not old.spec:
            self.turned(None)

    def _hand_over(self, charge: Charge, old: Instance, new: Instance) -> None:
        """What waited in a pool, at the pool's cost, is somebody's from now on."""
        self.charges.end(charge, meter.lasted(charge, self._read()))
        self.charges.owned_by(charge, old.pool, old.spec.labels.get(pools.LABEL, old.name))
        self.turned(charge)
        self._begin(new)

    def _undone(self, instance_id: str) -> None:
        self.charges.forget(instance_id)
        self.undone()

    def _begin(self, instance: Instance) -> None:
        self.charges.begin(self._opened(instance, self._read()))
        self.turned(None)

    def _opened(self, instance: Instance, now: Reading) -> Charge:
        spec = instance.spec
        return meter.opened(instance, self._price(spec), self._on_demand(spec), now)

    def _turn(self, charge: Charge, instance: Instance) -> None:
        """Go on in a new segment, if the terms are others now."""
        now = self._read()
        following = self._opened(instance, now)
        if meter.same_terms(charge, following):
            return
        if meter.goes_on(charge, following):
            self.charges.reprice(meter.repriced(charge, following.price, now))
        else:
            self.charges.end(charge, meter.lasted(charge, now))
            self.charges.begin(replace(following, reclaimed=charge.reclaimed), charge.run)
        self.turned(None)

    def repriced(self) -> None:
        """Prices may have moved: what runs goes on at those of now."""
        try:
            self._store.together(self._reprice)
        except BaseException:
            self.charges.reload()
            raise

    def _reprice(self) -> None:
        for instance_id, charge in list(self.charges.open.items()):
            instance = self._store.get(instance_id)
            if instance is not None:
                self._turn(charge, instance)

    def reclaimed(self, instance_id: str) -> None:
        """The host has taken a spot instance's capacity back: its first hour is free."""
        self.charges.reclaim(instance_id)
        self.undone()

    def cost(self, instance_id: str, since: float = 0.0, until: float = math.inf) -> float:
        """Dollars that an instance has cost, or only between two moments (seconds since the
        epoch)."""
        found = bill.spans(self.charges.of(instance_id), self._read(), set())
        return sum(bill.clipped(span, since, until).amount for span in found)

    def cost_of_starts(self, instance_id: str, since: float) -> float:
        """Dollars of an instance's starts since a moment; of one before it nothing, though the
        least that it is charged may last until after it."""
        found = bill.spans(self.charges.of(instance_id), self._read(), set())
        return sum(span.amount for span in found if span.start >= since)

    def least(self, spec: InstanceSpec) -> float:
        """Dollars that a start costs at least."""
        return meter.MINIMUM / meter.HOUR * self._price(spec)

    def now(self) -> Reading:
        """What its clocks show."""
        return self._read()

    def here(self) -> set[str]:
        """The ids of the instances that are not deleted."""
        return {instance.id for instance in self._store.all()}

    def seen(self, instance: Instance) -> float:
        """When an instance whose end nothing tells was last known to run: now, or when an earlier
        daemon looked last, in seconds since the epoch."""
        now = self._read().wall
        if not self._recovering or self._before is None:
            return now
        return max(instance.started, min(self._before.wall, now))

    def recover(self) -> None:
        """The daemon has come up and every row is true: charge what runs unmetered (it is from a
        Sublet without a meter), and all at the prices of now."""
        self._recovering = False
        for instance in self._store.all():
            if meter.runs(instance) and instance.id not in self.charges.open:
                self._begin(instance)
        self.repriced()
        self.look()

    def look(self) -> None:
        """Remember that all that runs runs now."""
        self._store.set_setting(SEEN, json.dumps(asdict(self._read())))

    async def watch(self) -> None:
        """Look at the clocks again and again, for ever."""
        try:
            while True:
                self.look()
                await asyncio.sleep(INTERVAL)
        finally:
            self.look()


def _sold(spec: InstanceSpec) -> tuple[float, int, Market]:
    return spec.cpus, spec.memory, spec.market
