"""When: cron expressions, calendar aliases, intervals and single times, in a time zone.

Sources: crontab(5) of Debian's cron, whose rules for daylight saving time cronsim follows: a time
that does not exist comes right after the gap, one that occurs twice comes once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from sublet.domain.errors import InvalidArgument
from sublet.domain.moments import zone
from sublet.domain.units import parse_duration

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_WINDOWS = (3600.0, 86400.0, 32 * 86400.0, 366 * 86400.0)
_LAST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
"""Nothing comes later: calendars and the kernel's clocks have an end."""

_HINT = 'Write "0 2 * * *", @daily, "every 6h" or "at 2026-12-01T08:00".'
_WORDS = re.compile(r"(every|at)\s+(.+)")


@dataclass(frozen=True, slots=True)
class Timer:
    """`text` as it was written; `zone` a name of the IANA time zone database; `anchor` (seconds
    since the epoch) is what intervals are counted from."""

    text: str
    zone: str = "UTC"
    anchor: float = 0.0

    def check(self, now: float) -> None:
        """Raises InvalidArgument where the text or the zone is none, or no time is to come."""
        zone(self.zone)
        if len(self.text) > 200 or self.next(now) is None:
            past = self.text.strip().startswith("at ")
            raise InvalidArgument(
                f"'{self.text}' {'is past' if past else 'never comes'}.", hint=_HINT
            )

    def next(self, after: float) -> float | None:
        """The first time after `after`; None where there is none. Raises InvalidArgument."""
        return _next(self, after)

    def following(self, after: float, count: int) -> list[float]:
        """The next `count` times after `after`, fewer where there are no more."""
        times = self._times(after)
        return [time for time, _ in zip(times, range(count), strict=False)]

    def latest(self, after: float, now: float) -> float | None:
        """The last time after `after` and not after `now`; None where there is none."""
        first = self.next(after)
        if first is None or first > now:
            return None
        for window in (*_WINDOWS, now - after):
            start = max(after, now - window)
            found = None
            for time in self._times(start):
                if time > now:
                    break
                found = time
            if found is not None or start == after:
                return found
        return None

    def _times(self, after: float) -> Iterator[float]:
        words = _WORDS.fullmatch(self.text.strip())
        if words is None:
            return self._cron(after)
        if words[1] == "at":
            return iter([time for time in [self._at(words[2])] if after < time <= _LAST])
        return self._every(_period(words[2]), after)

    def _every(self, period: float, after: float) -> Iterator[float]:
        number = (after - self.anchor) // period
        while (time := self.anchor + number * period) <= _LAST:
            if time > after:
                yield time
            number += 1

    def _at(self, text: str) -> float:
        try:
            found = datetime.fromisoformat(text.strip())
            zoned = found if found.tzinfo else found.replace(tzinfo=zone(self.zone))
            return zoned.timestamp()
        except (ValueError, OverflowError):
            raise InvalidArgument(f"'{text}' is no point in time.", hint=_HINT) from None

    def _cron(self, after: float) -> Iterator[float]:
        expression = ALIASES.get(self.text.strip().lower(), self.text)
        try:
            if len(expression.split()) != 5:
                raise CronSimError("five fields are wanted: minute, hour, day, month, weekday")
            begin = datetime.fromtimestamp(after, UTC).astimezone(zone(self.zone))
            found = CronSim(expression, begin)
        except (CronSimError, OverflowError, ValueError) as error:
            raise InvalidArgument(
                f"'{self.text}' is no time to run at: {error}.", hint=_HINT
            ) from None
        return (time for time in (moment.timestamp() for moment in found) if time > after)


@functools.lru_cache(1000)
def _next(timer: Timer, after: float) -> float | None:
    """Kept, because a search for a rare time, such as a fifth Friday of February, takes
    milliseconds, and every schedule is looked at whenever one is due."""
    return next(timer._times(after), None)


def _period(text: str) -> float:
    period = parse_duration(text)
    if period < 1:
        raise InvalidArgument(f"'{text}' is too short a period.", hint='Write "every 6h".')
    return period
