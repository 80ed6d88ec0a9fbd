"""The bill: what the meter's segments come to, by instance, day, market or label."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo

from sublet.domain.errors import InvalidArgument
from sublet.domain.meter import FREE, HOUR, MINIMUM, Charge, Reading, cost, lasted
from sublet.domain.size import Size
from sublet.domain.spec import Market

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Span:
    """Time that is on the bill: from `start` on (seconds since the epoch) for `seconds`, of which
    it ran for `used`. `price` (its mean) and `on_demand` in dollars per hour. Had the instance run
    around the clock, it would have gone on until `until`."""

    charge: Charge
    start: float
    seconds: float
    used: float
    price: float
    until: float

    @property
    def on_demand(self) -> float:
        return self.charge.on_demand

    @property
    def amount(self) -> float:
        return self.seconds / HOUR * self.price


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the bill, in seconds and dollars; what it is not about is None. `used` seconds
    it ran, `seconds` are charged. `on_demand_amount`: what the same use would have cost on demand;
    `around_the_clock_amount`: had it also never been stopped; `ec2_amount`: the same use at
    reference prices, None where they have nothing so large."""

    instance: str | None = None
    name: str | None = None
    image: str | None = None
    market: str | None = None
    day: str | None = None
    label: str | None = None
    starts: int = 0
    used: float = 0.0
    seconds: float = 0.0
    amount: float = 0.0
    on_demand_amount: float = 0.0
    around_the_clock_amount: float = 0.0
    ec2_amount: float | None = 0.0


def spans(charges: Iterable[Charge], now: Reading, here: Collection[str]) -> list[Span]:
    """What is on the bill for segments in their order. `here`: the instances that are not deleted;
    around the clock, others end with their last segment."""
    of_run: dict[int, list[Charge]] = defaultdict(list)
    for charge in charges:
        of_run[charge.run].append(charge)
    of_instance: dict[str, list[Span]] = defaultdict(list)
    for run in of_run.values():
        of_instance[run[0].instance] += _of_run(run, now)
    return [s for i, found in of_instance.items() for s in _around(found, now.wall, i in here)]


def _of_run(run: list[Charge], now: Reading) -> Iterator[Span]:
    """The spans of one start: the last one is as long as the minimum asks for."""
    used = [lasted(charge, now) for charge in run]
    total = sum(used)
    free = run[-1].market is Market.SPOT and total < FREE and any(c.reclaimed for c in run)
    for index, (charge, seconds) in enumerate(zip(run, used, strict=True)):
        more = max(0.0, MINIMUM - total) if index == len(run) - 1 else 0.0
        start, charged = charge.began.wall, seconds + more
        price = 0.0 if free else charge.price
        if charge.priced and not free and charged:
            price = cost(charge, charged) / charged * HOUR
        yield Span(charge, start, charged, seconds, price, start + charged)


def _around(found: list[Span], now: float, here: bool) -> Iterator[Span]:
    """With each span, the time until the next one; until now, where the instance is here."""
    for index, span in enumerate(found):
        after = found[index + 1].start if index + 1 < len(found) else (now if here else 0.0)
        if after > span.until:  # not by `replace`: there may be a hundred thousand of them
            yield Span(span.charge, span.start, span.seconds, span.used, span.price, after)
        else:
            yield span


def clipped(span: Span, since: float, until: float) -> Span:
    """What of a span lies between two moments."""
    if since <= span.start and span.until <= until:
        return span
    start = min(max(span.start, since), until)
    end, round_end = (
        max(start, min(each, until)) for each in (span.start + span.seconds, span.until)
    )
    used = max(0.0, min(span.start + span.used, until) - start)
    return Span(span.charge, start, end - start, used, span.price, round_end)


Key = Callable[[Span], tuple["str | None", "str | None", "str | None"]]
"""The instance, market and label that a line is about."""

Reference = Callable[[Size], "float | None"]
"""Dollars per hour elsewhere of what holds a size; None where nothing does."""

_KEYS: dict[str, Key] = {
    "day": lambda span: (None, None, None),
    "instance": lambda span: (span.charge.instance, span.charge.market.value, None),
    "market": lambda span: (None, span.charge.market.value, None),
}


def is_of(charge: Charge, instance: str) -> bool:
    """Whether a charge is that of an instance, named by its name then or its id."""
    return instance in (charge.name, charge.instance)


def bill(
    found: Iterable[Span],
    by: str,
    since: float = 0.0,
    until: float = float("inf"),
    zone: tzinfo = UTC,
    reference: Reference = lambda size: None,
) -> list[Line]:
    """The lines for the time between two moments, in the order of their first use. `by`: instance,
    market, day (of `zone`) or label=KEY. Raises InvalidArgument."""
    key = _key(by)
    elsewhere = functools.cache(lambda cpus, memory: reference(Size(cpus, memory)))
    totals: dict[tuple[str | None, ...], _Total] = {}
    for span in (clipped(span, since, until) for span in found):
        if span.until <= span.start and not span.seconds:
            continue
        price = elsewhere(span.charge.cpus, span.charge.memory)
        if by != "day":
            _add(totals, (None, *key(span)), span, since, price)
            continue
        for day, piece in _days(span, zone):
            _add(totals, (day, *key(span)), piece, max(since, piece.start), price)
    lines = [total.line(*about) for about, total in totals.items()]
    return sorted(lines, key=lambda line: line.day or "")


def _key(by: str) -> Key:
    kind, _, label = by.partition("=")
    if kind == "label" and label:
        return lambda span: (None, None, span.charge.labels.get(label, ""))
    if by not in _KEYS:
        raise InvalidArgument(
            f"A bill cannot be made by '{by}'.", hint="Write instance, day, market or label=KEY."
        )
    return _KEYS[by]


@dataclass(slots=True)
class _Total:
    last: Charge
    runs: set[int]
    used: float = 0.0
    seconds: float = 0.0
    amount: float = 0.0
    on_demand: float = 0.0
    around: float = 0.0
    elsewhere: float | None = 0.0

    def line(
        self, day: str | None, instance: str | None, market: str | None, label: str | None
    ) -> Line:
        return Line(
            instance=instance,
            name=self.last.name if instance else None,
            image=self.last.image if instance else None,
            market=market,
            day=day,
            label=label,
            starts=len(self.runs),
            used=self.used,
            seconds=self.seconds,
            amount=self.amount,
            on_demand_amount=self.on_demand,
            around_the_clock_amount=self.around,
            ec2_amount=self.elsewhere,
        )


def _add(
    totals: dict[tuple[str | None, ...], _Total],
    key: tuple[str | None, ...],
    span: Span,
    since: float,
    price: float | None,
) -> None:
    charge = span.charge
    total = totals.get(key)
    if total is None:
        total = totals[key] = _Total(charge, set())
    total.last = charge
    if span.seconds and charge.began.wall >= since:
        total.runs.add(charge.run)
    total.used += span.used
    total.seconds += span.seconds
    total.amount += span.amount
    total.on_demand += span.seconds / HOUR * span.on_demand
    total.around += (span.until - span.start) / HOUR * span.on_demand
    if price is None:
        total.elsewhere = None
    elif total.elsewhere is not None:
        total.elsewhere += span.seconds / HOUR * price


def _days(span: Span, zone: tzinfo) -> Iterator[tuple[str, Span]]:
    """The pieces of a span, each within one day of the zone."""
    start = span.start
    while True:
        day = datetime.fromtimestamp(start, zone)
        midnight = day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        following = (midnight + timedelta(days=1)).timestamp()
        if following <= start:  # a clock that is set back at midnight
            following = start + DAY
        yield day.date().isoformat(), clipped(span, start, following)
        if following >= max(span.until, span.start + span.seconds):
            return
        start = following


def total(lines: Iterable[Line]) -> Line:
    """The sum of the lines."""
    found = Line()
    for line in lines:
        sums = {name: getattr(found, name) + getattr(line, name) for name in _SUMMED}
        both = found.ec2_amount is not None and line.ec2_amount is not None
        elsewhere = (found.ec2_amount or 0.0) + (line.ec2_amount or 0.0) if both else None
        found = Line(**sums, ec2_amount=elsewhere)
    return found


_SUMMED = (
    *("starts", "used", "seconds", "amount", "on_demand_amount"),
    "around_the_clock_amount",
)

KEYS = tuple(field.name for field in fields(Line))
"""What a line has, in order."""
