"""Traces for `simulate`: read from lines of CSV, or made up as a day of requests."""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections.abc import Iterable, Iterator
from datetime import datetime

from sublet.domain.capacity import Amount
from sublet.domain.errors import InvalidArgument
from sublet.domain.simulated import Event
from sublet.domain.size import Size
from sublet.domain.spec import Market
from sublet.domain.units import YEAR

COLUMNS = ("time", "action", "id", "size", "market")
DAY = 86400.0
_SIZES = [Size.parse(text) for text in ("1x2", "2x4", "2x8", "4x8", "4x16", "8x32")]
WEIGHTS = (30, 25, 15, 14, 10, 6)
"""Sizes of made-up requests, and how many of a hundred have each: many small ones, few large."""

STEADY = {Market.ON_DEMAND: 0.4, Market.SPOT: 0.2}
"""The shares of the fleet that made-up requests hold all day."""

BUSY = {Market.ON_DEMAND: 0.35, Market.SPOT: 0.3}
"""The shares that others, which come and go, want at the busiest hour: more than there is."""

LONGEST = YEAR
"""Seconds that a trace may span: the price moves every minute of it."""

PEAK = 1.6
"""How many more requests come at the busiest time than on average."""


def read(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a CSV file with the columns time, action, id, size, market. `time` in seconds
    or as RFC 3339; `action` start or stop; the others may be empty for a stop. Raises
    InvalidArgument, naming the line."""
    rows = csv.DictReader(lines, restval="")
    try:
        yield from _ordered(rows)
    except UnicodeDecodeError:
        raise InvalidArgument("The trace is not text in UTF-8.") from None
    except csv.Error as error:  # a field without an end, say
        text = f"Line {rows.line_num + 1} of the trace cannot be read: {error}."
        raise InvalidArgument(text) from None


def _ordered(rows: csv.DictReader[str]) -> Iterator[Event]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InvalidArgument(
            f"The trace has no column '{missing[0]}'.", hint=f"Begin it with {','.join(COLUMNS)}."
        )
    first, last = math.inf, -math.inf
    for row in rows:
        try:
            event = _event(row)
        except (ValueError, OverflowError, InvalidArgument) as error:
            raise InvalidArgument(f"Line {rows.line_num} of the trace: {error}") from None
        first = min(first, event.time)
        if event.time - first > LONGEST:
            raise InvalidArgument(
                f"Line {rows.line_num} of the trace is more than a year after the first.",
                hint="Write all times in seconds, or all as RFC 3339.",
            )
        if event.time < last:
            raise InvalidArgument(
                f"Line {rows.line_num} of the trace is earlier than the one before.",
                hint="Sort it by time.",
            )
        last = event.time
        yield event


def _event(row: dict[str, str]) -> Event:
    text = row["time"].strip()
    try:
        time = float(text)
    except ValueError:
        time = datetime.fromisoformat(text).timestamp()
    if not math.isfinite(time):
        raise ValueError(f"'{text}' is no time")
    match row["action"].strip():
        case "start":
            market = Market(row["market"].strip() or Market.ON_DEMAND)
            return Event(time, row["id"], Size.parse(row["size"]), market)
        case "stop":
            return Event(time, row["id"])
        case other:
            raise ValueError(f"'{other}' is neither start nor stop")


def same(size: Size, count: int, market: Market) -> Iterator[Event]:
    """`count` requests for the same at once."""
    for number in range(count):
        yield Event(0.0, f"i-{number}", size, market)


def synthetic(total: Amount, count: int, chance: random.Random) -> Iterator[Event]:
    """A day of `count` starts, and stops, for a fleet with so much capacity: some run all day,
    others come and go, by day more of them than by night. At the busiest time more is wanted than
    there is; on demand alone would fit."""
    mean = sum(s.cpus * w for s, w in zip(_SIZES, WEIGHTS, strict=True)) / sum(WEIGHTS)
    at_once = total.cpus / mean
    number = 0
    for market, share in STEADY.items():
        for _ in range(min(round(share * at_once), count - number)):
            number += 1
            yield Event(0.0, f"i-{number}", chance.choices(_SIZES, WEIGHTS)[0], market)
    guests = count - number
    stay = {m: share * at_once * DAY / (guests / 2 * PEAK + 1) for m, share in BUSY.items()}
    ends: list[tuple[float, str]] = []
    for time in sorted(_moment(chance) for _ in range(guests)):
        while ends and ends[0][0] <= time:
            yield Event(*heapq.heappop(ends))
        number += 1
        name, market = f"i-{number}", chance.choice(list(BUSY))
        yield Event(time, name, chance.choices(_SIZES, WEIGHTS)[0], market)
        heapq.heappush(ends, (time + chance.expovariate(1 / stay[market]), name))
    while ends and ends[0][0] <= DAY:
        yield Event(*heapq.heappop(ends))


def _moment(chance: random.Random) -> float:
    """A time of the day: the most at 15:00, the fewest at 3:00."""
    while True:
        time = chance.random() * DAY
        height = 1 - (PEAK - 1) * math.cos((time - 3 * 3600) / DAY * math.tau)
        if chance.random() * PEAK < height:
            return time
