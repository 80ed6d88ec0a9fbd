"""The market of one host: who gets room, what spot costs, whose capacity is taken back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager

from sublet.domain import capacity
from sublet.domain.capacity import Amount
from sublet.domain.errors import HostDrained, InsufficientCapacity, PriceTooLow, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.market import shortage, usage
from sublet.domain.notice import Notice, Reason
from sublet.domain.progress import Report, silent
from sublet.domain.spec import InstanceSpec, Market
from sublet.domain.spot import affordable
from sublet.drivers import clock
from sublet.drivers.store.market import MarketStore
from sublet.engine.claims import Claims
from sublet.engine.holdings import Holdings, amount_of
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.notices import LATE, Notices
from sublet.engine.observer import NoticeObserver
from sublet.engine.pricing import Pricing
from sublet.engine.requests import SpotRequests
from sublet.engine.spares import Spares

_DRAINING = "draining"
"""The setting that remembers that the host is being drained."""


class SpotMarket:
    """Admission, notices, requests and the price of one daemon's host."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        store: MarketStore,
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until_promised,
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
        self.holdings = Holdings(rows, self.notices, self.price, self.config.notice)
        self.spares = Spares(rows)
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
        """The share of the capacity that on-demand uses, but for what waits in pools."""
        return usage(self._parts.store.ledger.demand, self._parts.rentable)

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
        self.check(spec)
        capacity.admit(amount_of(spec), self.free())

    def check(self, spec: InstanceSpec) -> None:
        """Raises where it may not start, whatever room there is: PriceTooLow, HostDrained."""
        if self.draining:
            raise HostDrained("The host is being drained: it starts nothing.")
        self._check_spot(spec)

    def _check_spot(self, spec: InstanceSpec) -> None:
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

    def postpones(self, spec: InstanceSpec) -> bool:
        """Whether its request may stay open until there is room."""
        persistent = spec.spot is not None and spec.spot.persistent
        return persistent and capacity.fits(spec.size, self._parts.rentable)

    async def admit(
        self, spec: InstanceSpec, *, key: str = "", wait: bool = True, report: Report = silent
    ) -> None:
        """Return when there is room for it. An on-demand instance that does not fit gets that of
        pools, at once, and that of spot instances, after their notice, and is told what it waits
        for; without `wait` only the former, and where even all would not be enough, it raises as
        `admit_now`. `key`: whose claim it is, if there is one.

        Who calls it adds or changes the row in the same breath.
        """
        check = functools.partial(self.check, spec)
        owner, amount = key or object(), amount_of(spec)
        if spec.spot is not None:
            check()
            capacity.admit(amount, self.claims.free(owner))
            return
        await self._room(amount, owner, check, wait=wait, report=report)

    @asynccontextmanager
    async def more(
        self, spec: InstanceSpec, amount: Amount, *, wait: bool = True, report: Report = silent
    ) -> AsyncIterator[Callable[[], Amount]]:
        """So much more room for an instance that runs, and is to become `spec`, its own until the
        block ends: by then its row holds it. Waits and raises as `admit`, but for a host that is
        drained; yields what tells the room that it can have."""
        key = object()
        if amount != Amount():
            check = functools.partial(self._check_spot, spec)
            if spec.spot is None:
                await self._room(amount, key, check, wait=wait, report=report)
            else:
                check()
                capacity.admit(amount, self.claims.free(key))
        with self.claims.kept(key, amount):
            yield lambda: self.claims.free(key)

    async def _room(
        self,
        asked: Amount,
        key: object,
        check: Callable[[], None],
        *,
        wait: bool,
        report: Report,
    ) -> None:
        """Return when there is room, on demand; `check` raises where it is not sold at all."""
        check()
        free = self.claims.free(key)
        if capacity.fits(asked, free):
            return
        if not wait and not capacity.fits(asked, free + self.spares.coming() + self.spares.room()):
            capacity.admit(asked, free)
        told, ends = set[str](), self._patience()
        with self.claims.waiting(key, asked), self.claims.listen() as news:
            while not capacity.fits(asked, self.claims.turn(key)):
                names = self._make_room(asked, key, wait)
                if not told.issuperset(names):
                    report(self._waiting(names))
                    told.update(names)
                    ends = self._patience()
                elif asyncio.get_running_loop().time() >= ends:
                    raise self._in_vain()
                news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(ends):
                        await news.wait()
                check()

    def _patience(self) -> float:
        """When the room that is waited for has come, unless something is wrong: on the loop's
        clock."""
        left = max(0.0, self.notices.deadline() - self.now())
        return asyncio.get_running_loop().time() + left + LATE + 1

    def _in_vain(self) -> InsufficientCapacity:
        """What is said of room that should have come."""
        stuck = [row.name for row in self.holdings.overdue() or self.holdings.leaving()]
        if not stuck:
            return InsufficientCapacity("The room that was to be free by now is not.")
        return InsufficientCapacity(
            f"The room of {_some(stuck)} was to be free by now and is not.",
            hint=f"`sublet inspect {stuck[0]}` says how it stands; try again when it has gone.",
        )

    def _make_room(self, asked: Amount, key: object, wait: bool) -> list[str]:
        """Let ready sandboxes of pools go, and with `wait` give notice to spot instances, as many
        as it takes; the names of those that will make room after it. Raises InsufficientCapacity
        where all of them are not enough."""
        free, coming = self.claims.turn(key), self.spares.coming()
        missing = shortage(asked, free, self.holdings.coming() + coming)
        if missing != Amount():
            candidates = self.holdings.reclaimable() if wait else Amount()
            possible = free + coming + self.spares.room() + candidates
            if not capacity.fits(asked, possible):
                if self.holdings.overdue():
                    raise self._in_vain()
                capacity.admit(asked, possible)
            missing = shortage(missing, self.spares.give(missing), Amount())
        if missing != Amount() and not (wait and self.holdings.give_way(missing)):
            raise InsufficientCapacity("What spot instances hold is not enough.")
        return [row.name for row in self.holdings.leaving()]

    def _waiting(self, names: list[str]) -> str:
        left = max(0.0, self.notices.deadline() - self.now())
        which = f"{len(names)} spot instance{'' if len(names) == 1 else 's'}: {_some(names)}"
        return f"Waiting {left:.0f} s for the room of {which}"

    def kept(self, instance: Instance) -> AbstractContextManager[None]:
        """The room that an instance has been admitted to is its own until the block ends, or its
        row holds it."""
        return self.claims.kept(instance.id, amount_of(instance.spec))

    def _changed(self, old: Instance | None, new: Instance | None) -> None:
        """A row has changed: there may be room, and another price."""
        before, after = _holds(old), _holds(new)
        if before == after:
            return
        if new is not None and after is not None:
            self.claims.drop(new.id)
        elif new is not None and new.id in self._restarting:  # it will be back in a moment
            self.claims.keep(new.id, amount_of(new.spec))
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
        live = [row for row in rows if capacity.holds(row)]
        seconds = self.config.notice if notice is None else notice
        self.notices.give(live, Reason.OWNER, seconds)
        return [notice for notice in map(self.notices.real, (row.id for row in live)) if notice]

    def drain(self, *, notice: float | None = None) -> list[Notice]:
        """Start nothing from now on, and take all spot back; the notices."""
        self._drained(True)
        return self.reclaim(self.holdings.running(), notice=notice)

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
            for row in self.holdings.every(LIVE - {State.STOPPING})
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

    def recover(self) -> None:
        """The daemon has come up, and every instance is in a true state."""
        self.requests.recover()  # first: by the notices it knows who ended them
        self.notices.recover()
        self._parts.tasks.keep("price", self.pricing.watch)


def _holds(row: Instance | None) -> tuple[Market, float, int, bool] | None:
    if row is None or not capacity.holds(row):
        return None
    return row.spec.market, row.spec.cpus, row.spec.memory, bool(row.pool)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
