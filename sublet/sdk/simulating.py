"""Simulations: the placement and the market of real hosts, on an imagined fleet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from sublet.domain.capacity import Amount, rentable
from sublet.domain.errors import InvalidArgument
from sublet.domain.prices import Prices
from sublet.domain.simulated import Event, Sample
from sublet.domain.simulation import Simulation
from sublet.domain.size import Size

MOST = 1_000_000
"""Hosts that a fleet may have: a million take some 100 MB."""

SECONDS_OF_SILENCE = 1.0


def simulate(
    host: Size,
    events: Iterable[Event],
    *,
    hosts: int = 1,
    overcommit: float = 1.0,
    notice: float = 120.0,
    prices: Prices | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], list[Sample]]:
    """Replay events over `hosts` machines of a size; what came of it, and how it went.

    The result has `placed`, `refused`, `reclaims`, `utilisation` (the share of all vCPUs, 0 to
    1), `revenue` in dollars by market, `seconds` of this computer's time, `placements_per_second`
    and `decision_us`, microseconds for each request. Raises InvalidArgument.
    """
    if not 1 <= hosts <= MOST or not 0 < overcommit < math.inf:
        raise InvalidArgument(
            f"A fleet has from one host to {MOST:,}, and sells some of them.",
            hint="Give --hosts 100, --overcommit 1.",
        )
    each: Amount = rentable(1, host.memory, host.cpus * overcommit, 0)
    fleet = Simulation(hosts, each, prices or Prices(), notice=notice)
    begun = told = time.perf_counter()
    deciding, starts, day = 0.0, 0, None
    for number, event in enumerate(events):
        before = time.perf_counter()
        fleet.take(event)
        after = time.perf_counter()
        deciding += after - before
        starts += event.size is not None
        day = event.time if day is None else day
        if not number % 1000 and after - told > SECONDS_OF_SILENCE:
            told = after
            hours = (event.time - day) / 3600
            progress(f"{starts:,} requests decided, {hours:.1f} h simulated")
    report = fleet.end()
    found = {
        "hosts": hosts,
        "requests": starts,
        "placed": report.placed,
        "refused": report.refused,
        "reclaims": report.reclaims,
        "utilisation": round(report.utilisation, 4),
        "revenue": {str(m): round(amount, 2) for m, amount in report.revenue.items()},
        "seconds": round(time.perf_counter() - begun, 3),
        "placements_per_second": round(starts / deciding) if deciding else 0,
        "decision_us": round(deciding / starts * 1e6, 2) if starts else 0.0,
    }
    return found, report.samples
