"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_duration

_EPOCH = re.compile(r"[0-9]{9,11}(\.[0-9]+)?")


def zone(name: str) -> tzinfo:
    """The time zone of this name. Raises InvalidArgument."""
    try:
        return ZoneInfo(name) if name != "UTC" else UTC
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise InvalidArgument(
            f"There is no time zone '{name}'.", hint="Write a name such as Europe/Berlin, or UTC."
        ) from None


def moment(text: str, now: float, place: tzinfo = UTC) -> float:
    """A time (RFC 3339, or seconds since the epoch) or an age (`24h`), as seconds since the
    epoch; one without a zone is of `place`. Raises InvalidArgument."""
    if _EPOCH.fullmatch(text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=place)).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return now - parse_duration(text)
    except InvalidArgument:
        raise InvalidArgument(
            f"'{text}' is no point in time.",
            hint="Write 2026-11-24, 2026-11-24T15:00:00Z, or an age such as 10m.",
        ) from None
