"""Spot instances reclaimed at once, and what an admission costs on a full host.

    python -m bench.market [--containers 100] [--vms 10] [--notice 120s] [--image FILE]

Half of the containers are to be stopped, half deleted, and VMs hibernated. Times are those of the
daemon's own events, against the moment of the request and the deadline that was announced.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

from bench import engines
from bench.__main__ import draw_aims, draw_rows
from bench.engines import IMAGE
from bench.host import workspace
from bench.measure import Aim, Findings, Row
from sublet.domain.capacity import Amount
from sublet.domain.config import Config
from sublet.domain.errors import InsufficientCapacity
from sublet.domain.instance import Instance, State
from sublet.domain.market import Candidate, victims
from sublet.domain.spec import InstanceSpec
from sublet.domain.spot import Spot
from sublet.domain.units import MIB, parse_duration
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.market import MarketStore
from sublet.engine.events import Events
from sublet.engine.market import SpotMarket
from sublet.engine.tasks import Tasks
from sublet.sdk import Client

ROWS, DECISIONS, WIDTH = 1000, 2000, 4
ENDS = ("instance.stopped", "instance.terminated", "instance.hibernated")


def reclaims(client: Client, containers: int, vms: int, notice: float) -> Findings:
    """All of them up, reclaimed, and gone or asleep."""
    with ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(lambda number: _container(client, number), range(containers)))
    for number in range(vms):
        _machine(client, number)
    before = max((event["id"] for event in client.events(since="1h")), default=0)
    asked = time.time()
    count = len(client.reclaim(all=True))
    answered = time.time() - asked
    until = asked + notice + 60
    while time.time() < until and _running(client):
        time.sleep(0.2)
    left = _running(client)
    found = _moments(client.events(after=before))
    first, last = _span(found["instance.notice"].values())
    late = [found["instance.reclaim"][i] - found["deadline"][i] for i in found["instance.reclaim"]]
    over = [found["end"][i] - found["deadline"][i] for i in found["end"]]
    what = f"{containers} containers, {vms} VMs"
    rows = [
        Row("market", "request answered", answered * 1000, "ms", what),
        Row("market", "first to last notice", (last - first) * 1000, "ms"),
        Row("market", "reclaim after its deadline, median", median(late) * 1000, "ms"),
        Row("market", "reclaim before its deadline", sum(each < 0 for each in late), "instances"),
        Row("market", "ended after the deadline, median", median(over), "s"),
    ]
    aims = [
        Aim(f"notice to all {count}, from the request on", last - asked, "s", 1, most=True),
        Aim(f"reclaim, {notice:g} s after the notice: late by", max(late), "s", 1, most=True),
        Aim("all gone or asleep after the deadline", max(over), "s", 6, most=True),
        Aim("still there", len(left), "instances", 0, most=True),
    ]
    return Findings(rows, aims)


def _container(client: Client, number: int) -> None:
    action = "stop" if number % 2 else "terminate"
    spot = {"on_reclaim": action}
    name = f"c{number}"
    client.run(IMAGE, ["sleep", "infinity"], name=name, cpus=0.1, memory="16m", spot=spot)


def _machine(client: Client, number: int) -> None:
    spot = {"on_reclaim": "hibernate"}
    name = f"vm{number}"
    client.run(IMAGE, ["sleep", "infinity"], name=name, cpus=1, memory="128m", spot=spot, vm=True)


def _running(client: Client) -> list[str]:
    asleep = ("stopped", "hibernated")
    return [row["name"] for row in client.ps(all=True) if row["state"] not in asleep]


def _moments(events: Iterator[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """When each instance was given notice, reclaimed and gone; `deadline`: what it was told."""
    found: dict[str, dict[str, float]] = {
        "instance.notice": {}, "instance.reclaim": {}, "deadline": {}, "end": {},
    }  # fmt: skip
    for event in events:
        when, kind, instance = _seconds(event["time"]), event["type"], event["instance"]
        if kind in found:
            found[kind][instance] = when
        if kind == "instance.notice":
            found["deadline"][instance] = _seconds(event["detail"]["time"])
        elif kind in ENDS and instance in found["deadline"]:
            found["end"][instance] = when
    return found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _span(times: Any) -> tuple[float, float]:
    found = sorted(times)
    return found[0], found[-1]


def decisions() -> Findings:
    """A thousand instances, half of them spot: one more that fits, one that does not, and the
    choice of whose room it gets."""
    with _market() as market:
        small = _spec(spot=False)
        fits = _timed(lambda: market.admit_now(small))
        large = InstanceSpec("i", cpus=1, memory=1 << 50)
        full = _timed(lambda: _refused(market, large))
        candidates = market.holdings.candidates()
        need = Amount(20.0, 20 * 64 * MIB)
        chosen = _timed(lambda: victims(candidates, need), 50)
        listed = _timed(market.holdings.candidates, 50)
    equal = [Candidate(f"{n}", Amount(1, 64 * MIB), 0.01, float(n)) for n in range(500)]
    same = _timed(lambda: victims(equal, need), 50)
    rows = [
        Row("market", "admission that fits", fits * 1e6, "µs", f"{ROWS} instances, median"),
        Row("market", "admission that does not", full * 1e6, "µs"),
        Row("market", "list what can be reclaimed", listed * 1e6, "µs", f"{len(candidates)} spot"),
        Row("market", "choose victims", chosen * 1e6, "µs", "sizes of all kinds"),
        Row("market", "choose victims, equals", same * 1e6, "µs"),
    ]
    return Findings(rows, [Aim("admission with 1,000 instances", fits * 1000, "ms", 1, most=True)])


def _timed(work: Callable[[], object], count: int = DECISIONS) -> float:
    """Median seconds of one."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return median(found)


def _refused(market: SpotMarket, spec: InstanceSpec) -> None:
    try:
        market.admit_now(spec)
    except InsufficientCapacity:
        return
    raise RuntimeError("a host with no room has taken it")


def _spec(*, spot: bool) -> InstanceSpec:
    size = random.choice((1, 2, 3, 4, 6, 8))
    spec = InstanceSpec("i", cpus=size / 4, memory=size * 32 * MIB, spot=Spot() if spot else None)
    return spec.with_defaults(Config().default_size)


@contextmanager
def _market() -> Iterator[SpotMarket]:
    """The engine's market, without a host below it."""
    random.seed(1)
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "bench.db")
        store = InstanceStore(database)
        for number in range(ROWS):
            spec, name = _spec(spot=number % 2 == 0), f"{number:012x}"
            store.add(Instance(name, name, "i", "d", spec, number + 1, State.RUNNING, 1.0, 2.0))
        rentable = Amount(10_000.0, 1 << 40)
        parts = SimpleNamespace(
            config=Config(), store=store, events=Events(store), tasks=Tasks(), rentable=rentable
        )
        lifecycle = SimpleNamespace(parts=parts, restarting=set())
        try:
            yield SpotMarket(cast(Any, lifecycle), MarketStore(database))
        finally:
            database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.market", description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--vms", type=int, default=10)
    parser.add_argument("--notice", default="120s")
    parser.add_argument("--image", type=Path, help="a packed file, instead of debian:bookworm")
    options = parser.parse_args()
    found = [decisions()]
    if options.containers + options.vms:
        with (
            workspace() as work,
            engines.sublet(
                work / "sublet", SUBLET_OVERCOMMIT="512", SUBLET_NOTICE=options.notice
            ) as engine,
        ):
            if options.image:
                engine("import", "--trust", str(options.image), "-t", IMAGE)
            else:
                engine("pull", IMAGE, timeout=1800)
            notice = parse_duration(options.notice)
            client = Client(engine.socket)
            found.append(reclaims(client, options.containers, options.vms, notice))
    for each in found:
        draw_rows("market", "spot", each)
    draw_aims(found)


if __name__ == "__main__":
    main()
