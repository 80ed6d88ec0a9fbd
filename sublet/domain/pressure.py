"""When the host's owner needs the machine more than its spot instances do.

Memory alone has a limit by default. To wait for a CPU is what overcommit sells; and the kernel
counts an instance that waits for its own share, too: one busy loop with 0.05 vCPUs is 95 % of
pressure on a host that has nothing else to do (kubernetes/enhancements#4230 has seen the same).
"""

from __future__ import annotations

from collections.abc import Mapping

RELIEF = 0.7
"""Of its limit, the pressure below which it is over: in between, things stay as they are."""

PLENTY = 0.25
"""Of the host's memory, what is available where it is short of none: who waits for memory then has
come to a limit of his own."""

PART = 0.25
"""Of what spot holds, what is taken back at a time."""


def felt(averages: Mapping[str, float], available: float) -> dict[str, float]:
    """The averages that tell of the host itself, of whose memory a part is `available`."""
    own = {"memory"} if available >= PLENTY else set()
    return {what: 0.0 if what in own else average for what, average in averages.items()}


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
