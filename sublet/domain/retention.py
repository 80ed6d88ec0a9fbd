"""Retention: which backups stay when others are removed.

The rules are restic's (its manual, "Removing snapshots according to a policy"): of each day or
week that has a backup the last one counts, and as many days and weeks as are asked for are kept,
the latest first. Days and weeks (ISO 8601) are those of UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sublet.domain.errors import InvalidArgument

_HINT = "Write last=24,daily=7,weekly=4; whole numbers from 1 on."


@dataclass(frozen=True, slots=True)
class Keep:
    """How many backups stay: the `last` ones, one a day, one a week; all 0: every one does."""

    last: int = 0
    daily: int = 0
    weekly: int = 0

    @property
    def everything(self) -> bool:
        return not (self.last or self.daily or self.weekly)

    def check(self) -> None:
        """Raises InvalidArgument where a number is none."""
        if min(self.last, self.daily, self.weekly) < 0:
            raise InvalidArgument("A number of backups to keep is negative.", hint=_HINT)


def parse_keep(text: str) -> Keep:
    """`last=24,daily=7,weekly=4`: what one `--backup-keep` names. Raises InvalidArgument."""
    counts: dict[str, int] = {}
    for item in text.split(","):
        key, _, number = item.strip().partition("=")
        if key not in ("last", "daily", "weekly") or key in counts or not _is_count(number):
            raise InvalidArgument(f"'{text}' does not say which backups to keep.", hint=_HINT)
        counts[key] = int(number)
    return Keep(**counts)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) > 0


def kept(times: Sequence[float], keep: Keep) -> set[int]:
    """The indices of the backups (made at these times, seconds since the epoch) that stay."""
    if keep.everything:
        return set(range(len(times)))
    latest_first = sorted(range(len(times)), key=lambda index: (times[index], index), reverse=True)
    rules: tuple[tuple[int, Callable[[int], object]], ...] = (
        (keep.last, lambda index: index),
        (keep.daily, lambda index: _moment(times[index]).date()),
        (keep.weekly, lambda index: _moment(times[index]).isocalendar()[:2]),
    )
    found: set[int] = set()
    for count, period in rules:
        seen: set[object] = set()
        for index in latest_first:
            if len(seen) < count and period(index) not in seen:
                seen.add(period(index))
                found.add(index)
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
