"""When the host's owner needs the machine more than its spot instances do."""

from __future__ import annotations

from collections.abc import Mapping

RELIEF = 0.7
"""Of its limit, the pressure below which it is over: in between, things stay as they are."""

PART = 0.25
"""Of what spot holds, what is taken back at a time."""


def pressed(before: str, averages: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """What the host is short of: `memory`, `cpu` or `io`, the worst of them; empty: nothing.

    `before` is what it was short of when it was last looked at; averages and limits are percents
    of the time in which some task waits.
    """
    over = {
        what: averages.get(what, 0.0) / limit
        for what, limit in limits.items()
        if averages.get(what, 0.0) >= limit * (RELIEF if what == before else 1.0)
    }
    if before in over:
        return before
    return max(sorted(over), key=lambda what: over[what]) if over else ""
