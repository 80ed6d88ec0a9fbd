"""How fast requests are placed on imagined fleets, and how that grows with the hosts.

    python -m bench.simulate [HOSTS...]

Replays a made-up day of 10 requests a host over fleets of each size, in turn, three rounds; prints
the median placements a second on one core, and what a decision costs against the smallest fleet.
"""

from __future__ import annotations

import random
import statistics
import sys

from sublet.domain.capacity import Amount
from sublet.domain.size import Size
from sublet.domain.traces import synthetic
from sublet.sdk.simulating import simulate

FLEETS = (1_000, 10_000, 100_000)
HOST = Size.parse("16x64")
ROUNDS = 3


def measure(hosts: int) -> float:
    """Placements a second."""
    total = Amount(hosts * HOST.cpus, hosts * HOST.memory)
    found, _ = simulate(HOST, synthetic(total, 10 * hosts, random.Random(1)), hosts=hosts)
    return float(found["placements_per_second"])


def main() -> None:
    fleets = [int(word) for word in sys.argv[1:]] or list(FLEETS)
    rates: dict[int, list[float]] = {hosts: [] for hosts in fleets}
    for _ in range(ROUNDS):
        for hosts in fleets:
            rates[hosts].append(measure(hosts))
    first = statistics.median(rates[fleets[0]])
    print(f"{'hosts':>8}  {'placements/s':>13}  {'µs each':>8}  cost, times the smallest fleet's")
    for hosts, found in rates.items():
        rate = statistics.median(found)
        print(f"{hosts:>8,}  {rate:>13,.0f}  {1e6 / rate:>8.1f}  {first / rate:.2f}")


if __name__ == "__main__":
    main()
