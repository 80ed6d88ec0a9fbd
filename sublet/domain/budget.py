"""Budgets: what an instance, or all with a label, may cost in a day, a week or a month.

Periods are those of the calendar in UTC; a week begins on Monday. Pure: the time is handed in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import format_dollars, rfc3339

SMALLEST = 1e-6
"""Dollars that a budget has at least: no start costs less than some hundred times as much."""

WARNED_AT = 0.8
"""The share of a budget at which a warning is due."""

_BUDGET = re.compile(r"\$?([0-9]+(?:\.[0-9]+)?)/(day|week|month)")
_LABEL = re.compile(r"label=([^=\0]+)=([^\0]*)")


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Level(IntEnum):
    """How far a budget is used."""

    FINE = 0
    WARNING = 1
    EXHAUSTED = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """Dollars a period."""

    amount: float
    period: Period = Period.MONTH

    def __str__(self) -> str:
        return f"{format_dollars(self.amount)}/{self.period}"


NONE = Budget(0.0)
"""Stands for no budget, where one is taken away."""


@dataclass(frozen=True, slots=True)
class LabelBudget:
    """The budget of all instances that have a label of this value, together."""

    key: str
    value: str
    budget: Budget

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether an instance with these labels is under it."""
        return labels.get(self.key) == self.value

    @property
    def subject(self) -> str:
        return f"label={self.key}={self.value}"


def parse_budget(text: str) -> Budget:
    """`5/month`, `0.50/day` or `$20/week`; `none` is no budget. Raises InvalidArgument."""
    if text.strip() in ("none", "0"):
        return NONE
    match = _BUDGET.fullmatch(text.strip())
    if not match:
        raise InvalidArgument(
            f"'{text}' is no budget.", hint="Write dollars a day, week or month, such as 5/month."
        )
    budget = Budget(float(match[1]), Period(match[2]))
    check_budget(budget)
    return budget


def check_budget(budget: Budget | None) -> None:
    """Raises InvalidArgument unless something can be bought with it."""
    if budget is not None and not SMALLEST <= budget.amount < math.inf:
        raise InvalidArgument(
            f"A budget of {format_dollars(budget.amount)} buys nothing.",
            hint="Write 5/month, or none.",
        )


def parse_label(text: str) -> tuple[str, str] | None:
    """Key and value of `label=KEY=VALUE`; None where it is none."""
    match = _LABEL.fullmatch(text)
    return (match[1], match[2]) if match else None


def bounds(period: Period, now: float) -> tuple[float, float]:
    """When the period of `now` begins, and when the next one does."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAY:
        begin, end = day, day + timedelta(days=1)
    elif period is Period.WEEK:
        begin = day - timedelta(days=day.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = day.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return begin.timestamp(), end.timestamp()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands: dollars `spent` in its period, which `renews` then (seconds since the
    epoch), and the `rate` in dollars per hour at which it is spent now."""

    subject: str
    budget: Budget
    spent: float
    rate: float
    renews: float

    @property
    def share(self) -> float:
        """Of the budget, what is spent."""
        return self.spent / self.budget.amount

    @property
    def level(self) -> Level:
        if self.spent >= self.budget.amount:
            return Level.EXHAUSTED
        return Level.WARNING if self.share >= WARNED_AT else Level.FINE

    def reaches(self, share: float, now: float) -> float | None:
        """When that share of it is spent, if all goes on as now; None: not in this period."""
        left = share * self.budget.amount - self.spent
        if left <= 0:
            return now
        if self.rate <= 0:
            return None
        moment = now + left / self.rate * 3600.0
        return moment if moment < self.renews else None

    def sentence(self) -> str:
        """How it stands, for people."""
        what = (
            "Its budget"
            if not self.subject.startswith("label=")
            else f"The budget of {self.subject}"
        )
        state = "is used up" if self.level is Level.EXHAUSTED else f"is used to {self.share:.0%}"
        return f"{what} of {self.budget} {state}; it renews at {rfc3339(self.renews)}."


def next_look(standings: Iterable[Standing], now: float) -> float | None:
    """When the next of the budgets can reach another level, or renews; None: there is none."""
    moments = []
    for standing in standings:
        shares = [s for s in (WARNED_AT, 1.0) if standing.share < s]
        found = [standing.reaches(share, now) for share in shares]
        moments += [standing.renews, *(moment for moment in found if moment is not None)]
    return min(moments, default=None)
