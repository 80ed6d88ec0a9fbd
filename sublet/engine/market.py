"""The market of one host: who gets room, what spot costs, whose capacity is taken back."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager

from sublet.domain import capacity
from sublet.domain.capacity import Amount, fits
from sublet.domain.errors import HostDrained, InsufficientCapacity, PriceTooLow, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.market import Candidate, shortage, usage, victims
from sublet.domain.notice import Notice, Reason
from sublet.domain.size import Size
from sublet.domain.spec import InstanceSpec, Market
from sublet.domain.spot import affordable
from sublet.drivers import clock
from sublet.drivers.store.market import MarketStore
from sublet.engine.claims import Claims, total
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.notices import Notices
from sublet.engine.observer import NoticeObserver
from sublet.engine.pricing import Pricing
from sublet.engine.requests import SpotRequests

Report = Callable[[str], None]

_DRAINING = "draining"
"""The setting that remembers that the host is being drained."""


_ENDING = frozenset({State.STOPPING, State.HIBERNATING})


def silent(_: str) -> None:
    """Nobody wants to know what is waited for."""


class SpotMarket:
    """Admission, notices, requests and the price of one daemon's host."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: MarketStore,
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until,
    ) -> None:
        self._parts, self.store, self.now = lifecycle.parts, store, now
        self.config = self._parts.config
        self._rate = self.config.prices.rate
        self.notices = Notices(lifecycle, store, now, until)
        self.pricing = Pricing(store, self.used, self.config.price_lag, now)
        rows = self._parts.store
        self.requests = SpotRequests(
            store, rows, self._parts.events, self.ceiling, self.notices.begun, now
        )
        self.notices.observers.append(self.requests)
        self.pricing.observers.append(self._repriced)
        self.claims = Claims(lambda: self._parts.rentable - rows.ledger.held)
        self._restarting = lifecycle.restarting
        self.draining = bool(self._parts.store.setting(_DRAINING))
        """Whether the host starts nothing."""
        self.pressed = ""
        """What the host is short of, in words; empty: nothing."""
        rows.listeners += [self.requests.changed, self.notices.changed, self._changed]

    # What it costs

    @property
    def observers(self) -> list[NoticeObserver]:
        """Who is told of notices."""
        return self.notices.observers

    def used(self) -> float:
        """The share of the capacity that on-demand uses."""
        return usage(self._parts.store.ledger.sold(Market.ON_DEMAND), self._parts.rentable)

    def factor(self) -> float:
        """What spot costs now, of the on-demand price: from 0.2 to 1."""
        return self.pricing.factor

    def price(self, spec: InstanceSpec) -> float:
        """What an instance of this request pays now, in dollars per hour."""
        price = self._rate(spec.cpus, spec.memory)
        return price * self.factor() if spec.spot else price

    def ceiling(self, spec: InstanceSpec) -> float:
        """The most that it pays, in dollars per hour."""
        most = spec.spot.max_price if spec.spot else None
        return self._rate(spec.cpus, spec.memory) if most is None else most

    def notice(self, instance_id: str) -> Notice | None:
        """The notice that an instance has."""
        return self.notices.get(instance_id)

    # Who gets room

    def free(self) -> Amount:
        """What can still be sold: what others wait for is theirs."""
        return self.claims.free()

    def admit_now(self, spec: InstanceSpec) -> None:
        """Raises unless there is room for it now, and for spot at its price:
        InsufficientCapacity, PriceTooLow, HostDrained."""
        self._check(spec)
        capacity.admit(spec.size, self.free())

    def _check(self, spec: InstanceSpec) -> None:
        if self.draining:
            raise HostDrained("The host is being drained: it starts nothing.")
        if spec.spot is None:
            return
        price, most = self.price(spec), self.ceiling(spec)
        if not affordable(price, most):
            raise PriceTooLow(f"Spot of this size is ${price:.4f} an hour, above ${most:.4f}.")
        if self.pressed:
            raise InsufficientCapacity(
                f"The host is short of {self.pressed}: it sells no spot now.",
                hint="Try again later, or start it on demand.",
            )

    async def admit(
        self, spec: InstanceSpec, *, key: str = "", wait: bool = True, report: Report = silent
    ) -> None:
        """Return when there is room for it. An on-demand instance that does not fit gets that of
        spot instances, after their notice, and is told what it waits for; without `wait`, and
        where even all spot would not be enough, it raises as `admit_now`. `key`: whose claim it
        is, if there is one.

        Who calls it adds or changes the row in the same breath.
        """
        self._check(spec)
        free = self.claims.free(key)
        if spec.spot or not wait or fits(spec.size, free):
            capacity.admit(spec.size, free)
            return
        claim, told = key or object(), 0
        with self.claims.held(claim, _amount(spec)), self.claims.listen() as news:
            while not fits(spec.size, self.claims.turn(claim)):
                names = self._make_room(spec.size, claim)
                if len(names) > told:
                    report(self._waiting(names))
                    told = len(names)
                news.clear()
                await news.wait()
                self._check(spec)

    def _make_room(self, size: Size, claim: object) -> list[str]:
        """Give notice to as many spot instances as it takes; the names of those that will make
        room. Raises InsufficientCapacity where all of them are not enough."""
        asked = Amount(size.cpus, size.memory)
        missing = shortage(asked, self.claims.turn(claim), self._coming())
        if missing != Amount():
            found = victims(self.candidates(), missing)
            if found is None:
                capacity.admit(size, self.claims.turn(claim) + self._reclaimable())
                raise InsufficientCapacity("What spot instances hold is not enough.")
            rows = [row for row in map(self._parts.store.get, found) if row]
            self.notices.give(rows, Reason.CAPACITY, self.config.notice)
        return [row.name for row in self._leaving()]

    def _waiting(self, names: list[str]) -> str:
        left = max(0.0, self.notices.deadline() - self.now())
        which = f"{len(names)} spot instance{'' if len(names) == 1 else 's'}: {_some(names)}"
        return f"Waiting {left:.0f} s for the room of {which}"

    def candidates(self) -> list[Candidate]:
        """The spot instances that could be given notice."""
        return [
            Candidate(row.id, _amount(row.spec), self.price(row.spec), row.started)
            for row in self.running()
            if not self._leaves(row)
        ]

    def _leaves(self, row: Instance) -> bool:
        return row.state in _ENDING or self.notices.real(row.id) is not None

    def _leaving(self) -> list[Instance]:
        """The spot instances whose room will be free."""
        return [row for row in self.running() if self._leaves(row)]

    def _coming(self) -> Amount:
        return total(_amount(row.spec) for row in self._leaving())

    def _reclaimable(self) -> Amount:
        return total(candidate.amount for candidate in self.candidates()) + self._coming()

    def spot(self, states: Iterable[State]) -> list[Instance]:
        """The spot instances that are in one of the states."""
        return [row for row in self._parts.store.all() if row.spec.spot and row.state in states]

    def running(self) -> list[Instance]:
        """The spot instances that hold room."""
        return self.spot(capacity.HOLDING)

    def kept(self, instance: Instance) -> AbstractContextManager[None]:
        """The room that an instance has been admitted to is its own until the block ends, or its
        row holds it."""
        return self.claims.held(instance.id, _amount(instance.spec))

    def _changed(self, old: Instance | None, new: Instance | None) -> None:
        """A row has changed: there may be room, and another price."""
        before, after = _holds(old), _holds(new)
        if before == after:
            return
        if new is not None and after is not None:
            self.claims.drop(new.id)
        elif new is not None and new.id in self._restarting:  # it will be back in a moment
            self.claims.put(new.id, _amount(new.spec))
        self.pricing.changed()
        self.claims.wake()

    # Taking back

    def reclaim(
        self, instances: Iterable[Instance], *, notice: float | None = None
    ) -> list[Notice]:
        """The owner wants their capacity back, after `notice` seconds (None: as always). Raises
        WrongState for what is not spot."""
        rows = list(instances)
        for row in rows:
            if row.spec.spot is None:
                raise WrongState(
                    f"{row.name} is on demand: its capacity is its own.",
                    hint=f"`sublet stop {row.name}` stops it.",
                )
        live = [row for row in rows if row.state in capacity.HOLDING]
        seconds = self.config.notice if notice is None else notice
        self.notices.give(live, Reason.OWNER, seconds)
        return [notice for notice in map(self.notices.real, (row.id for row in live)) if notice]

    def drain(self, *, notice: float | None = None) -> list[Notice]:
        """Start nothing from now on, and take all spot back; the notices."""
        self._drained(True)
        return self.reclaim(self.running(), notice=notice)

    def undrain(self) -> None:
        """Start instances again."""
        self._drained(False)

    def _drained(self, yes: bool) -> None:
        self.draining = yes
        self._parts.store.set_setting(_DRAINING, "yes" if yes else "")
        self._parts.events.publish("host.drain" if yes else "host.undrain")
        self.claims.wake()

    def _repriced(self) -> None:
        """The price has moved: some may not want to pay it, others may come back."""
        dear = [
            row
            for row in self.spot(LIVE - {State.STOPPING})
            if not affordable(self.price(row.spec), self.ceiling(row.spec))
            and not self.notices.real(row.id)
        ]
        if dear:
            self.notices.give(dear, Reason.PRICE, self.config.notice)
        self.claims.wake()

    def press(self, short: str) -> None:
        """The host is short of something (`memory`, `cpu`, `io`), or of nothing any more."""
        self.pressed = short
        if short:
            self._parts.events.publish("host.pressure", short_of=short)
        else:
            self._parts.events.publish("host.relief")
        self.claims.wake()

    def relieve(self, part: float) -> list[Notice]:
        """Take back a part of what spot instances without a notice hold; the notices."""
        found = self.candidates()
        held = total(candidate.amount for candidate in found)
        need = Amount(held.cpus * part, math.ceil(held.memory * part))
        rows = [self._parts.store.get(name) for name in victims(found, need) or ()]
        live = [row for row in rows if row]
        return self.notices.give(live, Reason.PRESSURE, self.config.notice)

    def recover(self) -> None:
        """The daemon has come up, and every instance is in a true state."""
        self.notices.recover()
        self._parts.tasks.keep("price", self.pricing.watch)


def _amount(spec: InstanceSpec) -> Amount:
    return Amount(spec.cpus, spec.memory)


def _holds(row: Instance | None) -> tuple[Market, float, int] | None:
    if row is None or row.state not in capacity.HOLDING:
        return None
    return row.spec.market, row.spec.cpus, row.spec.memory


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
