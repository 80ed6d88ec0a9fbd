"""A market on an imagined fleet: the placement, the price and the choice of victims are those of
real hosts; only the machines are not there.

An on-demand instance that fits nowhere takes the place of spot instances, which get their notice
first. Spot that fits nowhere waits, and so does spot that was taken back.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sublet.domain.capacity import Amount
from sublet.domain.market import Candidate, moved, quoted, shortage, target, usage, victims
from sublet.domain.placement import Fleet
from sublet.domain.prices import Prices
from sublet.domain.simulated import Event, Report, Sample
from sublet.domain.spec import Market
from sublet.domain.takings import Takings


@dataclass(slots=True)
class _Slice:
    """An instance. `host` -1: it waits. `since`: when it was placed, or began to run; `running`: it
    runs, and what it takes is not another's any more; `noted`: for its bill."""

    id: str
    amount: Amount
    hourly: float
    market: Market
    host: int = -1
    since: float = 0.0
    ran: bool = False
    running: bool = False
    noticed: bool = False
    noted: float = 0.0


class Simulation:
    """A fleet of `hosts` that can sell `each`. Events come in the order of their times."""

    def __init__(
        self,
        hosts: int,
        each: Amount,
        prices: Prices,
        *,
        notice: float = 120.0,
        step: float = 60.0,
        lag: float = 300.0,
    ) -> None:
        self.total = Amount(hosts * each.cpus, hosts * each.memory)
        self.report = Report()
        self._prices, self._notice, self._step, self._lag = prices, notice, step, lag
        self._free, self._firm = Fleet(hosts, each), Fleet(hosts, each)
        self._slices: dict[str, _Slice] = {}
        self._spot: dict[int, dict[str, _Slice]] = {}
        self._coming: dict[int, Amount] = {}
        self._waiting: dict[Amount, deque[_Slice]] = {}
        self._deadlines: list[tuple[float, int, _Slice]] = []
        self._sold = dict.fromkeys(Market, Amount())
        self._takings = Takings()
        self._lacking = 0
        self._factor = quoted(target(0.0))
        self._begin: float | None = None
        self._now = self._sampled = self._integral = 0.0
        self._count = 0

    def replay(self, events: Iterable[Event]) -> Report:
        """All events, to the last one's time; what came of them."""
        for event in events:
            self.take(event)
        return self.end()

    def take(self, event: Event) -> None:
        """Go on to the event's time, and do what it says."""
        if self._begin is None:
            self._begin = self._now = self._sampled = event.time
            self._sample()
        self._advance(event.time)
        if event.size is None:
            self._stop(event.id)
        elif event.id not in self._slices:
            amount = Amount(event.size.cpus, event.size.memory)
            hourly = self._prices.hourly(event.size)
            self._start(_Slice(event.id, amount, hourly, event.market))
        else:  # its name is in use
            self.report.refused += 1

    def end(self) -> Report:
        """The report, with what is still waiting counted as refused if it never ran."""
        report, span = self.report, self._now - (self._begin or 0.0)
        report.refused += sum(not each.ran for each in self._slices.values())
        report.revenue = self._takings.revenue
        now = sum(amount.cpus for amount in self._sold.values())
        report.utilisation = (self._integral / span if span else now) / self.total.cpus
        self._sample()
        return report

    # Time

    def _advance(self, time: float) -> None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= time:
            moment, _, one = heapq.heappop(deadlines)
            self._pass(moment)
            if one.market is Market.SPOT:
                self._take_back(one)
            elif one.host >= 0:
                self._run(one)
        self._pass(time)

    def _pass(self, time: float) -> None:
        """Money and use until `time`; the price moves in steps."""
        while self._now < time:
            until = min(time, self._sampled + self._step)
            self._takings.go_on(until - self._now, self._factor)
            cpus = sum(amount.cpus for amount in self._sold.values())
            self._integral += cpus * (until - self._now)
            self._now = until
            if until == self._sampled + self._step:
                self._sampled = until
                wanted = target(usage(self._sold[Market.ON_DEMAND], self.total))
                self._factor = quoted(moved(self._factor, wanted, self._step, self._lag))
                self._sample()

    def _sample(self) -> None:
        shares = {market: amount.cpus / self.total.cpus for market, amount in self._sold.items()}
        on_demand, spot = shares[Market.ON_DEMAND], shares[Market.SPOT]
        self.report.samples.append(Sample(self._now, on_demand, spot, self._lacking, self._factor))

    # Instances

    def _start(self, new: _Slice) -> None:
        host = self._free.find(new.amount)
        if host is not None:
            self._place(new, host)
            self._run(new)
        elif new.market is Market.SPOT:
            self._wait(new)
        else:
            host = self._make_room(new)
            if host is None:
                self.report.refused += 1
                return
            self._place(new, host)
            self._at_deadline(new)
        self._slices[new.id] = new

    def _wait(self, one: _Slice) -> None:
        self._waiting.setdefault(one.amount, deque()).append(one)
        self._lacking += 1

    def _at_deadline(self, one: _Slice) -> None:
        self._count += 1
        heapq.heappush(self._deadlines, (self._now + self._notice, self._count, one))

    def _place(self, new: _Slice, host: int) -> None:
        self.report.placed += not new.ran
        new.host, new.ran, new.noticed = host, True, False
        new.since = self._now
        self._free.take(host, new.amount)
        if new.market is Market.SPOT:
            self._spot.setdefault(host, {})[new.id] = new
        else:
            self._firm.take(host, new.amount)

    def _run(self, one: _Slice) -> None:
        one.running, one.since = True, self._now
        one.noted = self._takings.begin(one.market, one.hourly)
        self._sell(one, 1)

    def _sell(self, one: _Slice, sign: int) -> None:
        held = self._sold[one.market]
        more = Amount(sign * one.amount.cpus, sign * one.amount.memory)
        self._sold[one.market] = held + more

    def _make_room(self, new: _Slice) -> int | None:
        """Give notice on the first host whose on-demand instances leave room; None: on none. It
        gets what it needs at once, in the books: nobody else can have it meanwhile."""
        host = self._firm.find(new.amount)
        if host is None:
            return None
        coming = self._coming.get(host, Amount())
        need = shortage(new.amount, self._free.free(host), coming)
        spot = self._spot.get(host, {})
        candidates = [
            Candidate(one.id, one.amount, one.hourly * self._factor, one.since)
            for one in spot.values()
            if not one.noticed
        ]
        chosen = victims(candidates, need)
        if chosen is None:
            return None
        for victim in map(spot.__getitem__, chosen):
            victim.noticed = True
            self._at_deadline(victim)
            coming = coming + victim.amount
        self._coming[host] = coming
        return host

    def _take_back(self, victim: _Slice) -> None:
        """The deadline has come: it waits for room again, unless it has ended meanwhile."""
        if not victim.noticed or victim.host < 0:
            return
        host = self._leave(victim, reclaimed=True)
        self.report.reclaims += 1
        self._wait(victim)
        self._fill(host)

    def _stop(self, instance_id: str) -> None:
        one = self._slices.pop(instance_id, None)
        if one is None:
            return
        if one.host < 0:  # it waits; who looks at the queue leaves it out
            self.report.refused += not one.ran
            self._lacking -= 1
            return
        self._fill(self._leave(one))

    def _leave(self, one: _Slice, *, reclaimed: bool = False) -> int:
        """It gives back what it has; the host."""
        host, one.host = one.host, -1
        self._free.give(host, one.amount)
        if one.market is Market.SPOT:
            del self._spot[host][one.id]
            if one.noticed:
                one.noticed = False
                self._coming[host] = self._coming[host] - one.amount
        else:
            self._firm.give(host, one.amount)
        if one.running:
            self._sell(one, -1)
            terms = (one.market, one.hourly, one.noted, self._now - one.since, self._factor)
            self._takings.end(*terms, reclaimed=reclaimed)
        one.running = False
        return host

    def _fill(self, host: int) -> None:
        """Let those that wait have what has become free on the host, the largest first."""
        for amount in sorted(self._waiting, key=lambda a: (-a.cpus, -a.memory)):
            queue = self._waiting[amount]
            free = self._free.free(host)
            while queue and amount.cpus <= free.cpus and amount.memory <= free.memory:
                one = queue.popleft()
                if self._slices.get(one.id) is one:  # it has not been stopped meanwhile
                    self._lacking -= 1
                    self._place(one, host)
                    self._run(one)
                    free = self._free.free(host)
            if not queue:
                del self._waiting[amount]
