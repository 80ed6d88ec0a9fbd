"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_duration

_EPOCH = re.compile(r"[0-9]{9,11}(\.[0-9]+)?")


def moment(text: str, now: float) -> float:
    """A time (RFC 3339, or seconds since the epoch) or an age (`24h`), as seconds since the
    epoch. Raises InvalidArgument."""
    if _EPOCH.fullmatch(text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return now - parse_duration(text)
    except InvalidArgument:
        raise InvalidArgument(
            f"'{text}' is no point in time.",
            hint="Write 2026-11-24T15:00:00Z, seconds since the epoch, or an age such as 10m.",
        ) from None
