"""Placement and the market on imagined fleets."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublet.domain.capacity import Amount
from sublet.domain.errors import InvalidArgument
from sublet.domain.placement import Fleet
from sublet.domain.prices import Prices
from sublet.domain.simulated import Event
from sublet.domain.simulation import Simulation
from sublet.domain.size import Size
from sublet.domain.spec import Market
from sublet.domain.traces import DAY, read, same, synthetic
from sublet.domain.units import GIB

SUBLET = str(Path(sys.executable).parent / "sublet")
AMOUNTS = st.builds(Amount, st.sampled_from([0.1, 0.25, 1, 2, 4]), st.integers(1, 8))
SMALL, LARGE = Size.parse("2x2"), Size.parse("4x4")


def simulation(hosts: int = 1, each: str = "4x8") -> Simulation:
    size = Size.parse(each)
    return Simulation(hosts, Amount(size.cpus, size.memory), Prices())


@settings(max_examples=200, deadline=None)
@given(
    hosts=st.integers(1, 9),
    steps=st.lists(st.tuples(st.booleans(), AMOUNTS, st.integers(0, 8)), max_size=60),
)
def test_the_first_host_that_has_room(hosts: int, steps: list[tuple[bool, Amount, int]]) -> None:
    """As a plain search of all hosts finds it, after whatever was taken and given."""
    fleet = Fleet(hosts, Amount(4, 8))
    taken: list[tuple[int, Amount]] = []
    for give, amount, number in steps:
        if give and taken:
            fleet.give(*taken.pop(number % len(taken)))
            continue
        free = [fleet.free(host) for host in range(hosts)]
        fits = [f.cpus >= amount.cpus and f.memory >= amount.memory for f in free]
        found = fleet.find(amount)
        assert found == (fits.index(True) if True in fits else None)
        if found is not None:
            fleet.take(found, amount)
            taken.append((found, amount))
    for host, amount in taken:
        fleet.give(host, amount)
    assert all(fleet.free(host) == Amount(4, 8) for host in range(hosts))


def test_448_machines_fill_one_host() -> None:
    report = simulation(each="896x1200").replay(same(SMALL, 449, Market.ON_DEMAND))
    assert (report.placed, report.refused, report.utilisation) == (448, 1, 1.0)


def test_on_demand_takes_the_place_of_spot_after_the_notice() -> None:
    fleet = simulation()
    fleet.take(Event(0.0, "spot", LARGE, Market.SPOT))
    fleet.take(Event(100.0, "firm", LARGE))
    fleet.take(Event(3700.0, "firm"))  # ends: spot comes back
    fleet.take(Event(7300.0, "spot"))
    report = fleet.end()
    assert (report.placed, report.refused, report.reclaims) == (2, 0, 1)
    hourly = Prices().hourly(LARGE)
    firm = 3700 - 100 - 120
    assert report.revenue[Market.ON_DEMAND] == pytest.approx(hourly * firm / 3600)
    assert 0.2 * hourly < report.revenue[Market.SPOT] < hourly * 2
    assert report.utilisation == pytest.approx(1.0)
    assert max(sample.factor for sample in report.samples) > 0.8


def test_the_cheapest_victims_are_chosen() -> None:
    fleet = simulation()
    fleet.take(Event(0.0, "dear", Size.parse("2x6"), Market.SPOT))
    fleet.take(Event(0.0, "cheap", Size.parse("2x1"), Market.SPOT))
    fleet.take(Event(1.0, "firm", Size.parse("2x1")))
    fleet.take(Event(1000.0, "dear"))
    report = fleet.end()
    assert report.reclaims == 1
    assert report.refused == 0


def test_what_never_ran_is_refused() -> None:
    fleet = simulation()
    for number in range(2):
        fleet.take(Event(0.0, f"firm-{number}", LARGE))
        fleet.take(Event(0.0, f"spot-{number}", LARGE, Market.SPOT))
    fleet.take(Event(10.0, "spot-0"))
    report = fleet.end()
    assert (report.placed, report.refused) == (1, 3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), hosts=st.integers(1, 4))
def test_nothing_is_sold_twice(seed: int, hosts: int) -> None:
    total = Amount(hosts * 16, hosts * 64 * GIB)
    fleet = simulation(hosts, "16x64")
    asked = 0
    for event in synthetic(total, 60 * hosts, random.Random(seed)):
        asked += event.size is not None
        fleet.take(event)
    report = fleet.end()
    assert asked == 60 * hosts
    assert report.placed + report.refused == asked
    assert 0 < report.utilisation <= 1
    for sample in report.samples:
        assert sample.on_demand + sample.spot <= 1 + 1e-9
        assert 0.2 <= sample.factor <= 1
    assert report.samples[-1].time <= DAY


def events() -> st.SearchStrategy[list[tuple[float, str, Size | None, Market]]]:
    """Few names, so that they come again; sizes that collide, and ends of what never began."""
    sizes = st.sampled_from([None, SMALL, LARGE, Size.parse("1x6"), Size.parse("0.3x1")])
    ids, gaps = st.sampled_from("abcdef"), st.sampled_from([0.0, 1.0, 60.0, 119.0, 120.0, 4000.0])
    return st.lists(st.tuples(gaps, ids, sizes, st.sampled_from(Market)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps=events(), hosts=st.integers(1, 3))
def test_no_host_is_oversold_whatever_comes(
    steps: list[tuple[float, str, Size | None, Market]], hosts: int
) -> None:
    fleet, each, now = simulation(hosts), Size.parse("4x8"), 0.0
    asked = 0
    for gap, name, size, market in steps:
        now += gap
        asked += size is not None
        fleet.take(Event(now, name, size, market))
        for host in range(hosts):
            here = [one for one in fleet._slices.values() if one.host == host and one.running]
            assert sum(one.amount.cpus for one in here) <= each.cpus + 1e-9
            assert sum(one.amount.memory for one in here) <= each.memory
    lacking = [one for one in fleet._slices.values() if one.host < 0]
    report = fleet.end()
    assert report.samples[-1].waiting == len(lacking)
    assert report.placed + report.refused == asked
    assert all(amount >= -1e-9 for amount in report.revenue.values())
    assert report.utilisation <= 1 + 1e-9
    for name in "abcdef":
        fleet.take(Event(now + 1, name))
    fleet.take(Event(now + 1000, "nobody"))
    assert all(fleet._free.free(h) == Amount(each.cpus, each.memory) for h in range(hosts))


def test_a_name_that_is_used_again() -> None:
    """The one that waited and was stopped takes no place of another of its name."""
    fleet = simulation()
    fleet.take(Event(0.0, "firm", LARGE))
    for _ in range(2):
        fleet.take(Event(1.0, "spot", LARGE, Market.SPOT))
        fleet.take(Event(2.0, "spot"))
        fleet.take(Event(2.0, "spot", LARGE, Market.SPOT))
        fleet.take(Event(2.0, "spot", LARGE, Market.SPOT))  # its name is in use
    fleet.take(Event(3.0, "firm"))
    fleet.take(Event(4.0, "spot"))
    fleet.take(Event(5.0, "other", LARGE))
    report = fleet.end()
    assert report.placed == 3
    assert report.samples[-1].on_demand == 1.0


def test_revenue_is_what_the_bill_would_say() -> None:
    fleet, hourly = simulation(), Prices().hourly(LARGE)
    fleet.take(Event(0.0, "short", LARGE))
    fleet.take(Event(10.0, "short"))
    fleet.take(Event(100.0, "spot", LARGE, Market.SPOT))
    fleet.take(Event(3000.0, "firm", LARGE))
    fleet.take(Event(3200.0, "spot"))
    fleet.take(Event(3240.0, "firm"))
    report = fleet.end()
    assert report.revenue[Market.ON_DEMAND] == pytest.approx(hourly * (60 + 120) / 3600)
    assert report.revenue[Market.SPOT] == pytest.approx(0), "it was reclaimed in its first hour"
    assert report.reclaims == 1


def test_a_trace() -> None:
    lines = [
        "time,action,id,size,market",
        "2026-11-28T10:00:00Z,start,a,2x4,spot",
        "2026-11-28T11:00:00Z,start,b,1x1,",
        "2026-11-28T12:00:00Z,stop,a,,",
    ]
    first, second, third = read(lines)
    assert (first.id, first.size, first.market) == ("a", Size.parse("2x4"), Market.SPOT)
    assert (second.market, second.time - first.time) == (Market.ON_DEMAND, 3600)
    assert third.size is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,b"], "no column 'time'"),
        (["time,action,id,size,market", "x,start,a,1x1,spot"], "Line 2"),
        (["time,action,id,size,market", "0,run,a,1x1,spot"], "neither start nor stop"),
        (["time,action,id,size,market", "0,start,a,big,spot"], "Line 2"),
        (["time,action,id,size,market", "0,start,a,1x1,free"], "Line 2"),
        (["time,action,id,size,market", "nan,start,a,1x1,spot"], "Line 2"),
        (["time,action,id,size,market", "5,stop,a,,", "4,stop,a,,"], "earlier"),
        (["time,action,id,size,market", "5,stop,a,,", "1e18,stop,a,,"], "more than a year"),
        (["time,action,id,size,market", f"0,start,{'a' * 200_000},1x1,"], "Line 2.*field"),
        (["time,action,id,size,market", f"0,start,a,1x{'9' * 400},"], "Line 2"),
        (["time,action,id,size,market", "0001-01-01,start,a,1x1,"], "Line 2"),
    ],
)
def test_what_is_no_trace(lines: list[str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        list(read(lines))


def test_from_the_command_line(tmp_path: Path) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [SUBLET, "simulate", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    picture = tmp_path / "day.png"
    trace = ["--hosts", "20", "--trace", "synthetic", "--json", "--out", str(picture)]
    found = json.loads(run(*trace).stdout)
    keys = "placed refused utilisation reclaims seconds placements_per_second revenue".split()
    assert set(keys) <= set(found)
    assert found["placed"] + found["refused"] == 200
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = json.loads(run(*trace).stdout)
    timing = ("seconds", "placements_per_second", "decision_us")
    assert {k: v for k, v in again.items() if k not in timing} == {
        k: v for k, v in found.items() if k not in timing
    }
    plain = run("--host", "896x1200", "--request", "2x2", "--count", "448")
    assert "448 of 448 requests, on 1 host" in plain.stdout
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("time,action", encoding="utf-16")
    for args, said in [
        (["--trace", str(foreign)], "not text in UTF-8"),
        (["--request", "2x2", "--count", "-1"], "are none"),
        (["--trace", "synthetic", "--overcommit", "nan"], "from one host"),
        (["--trace", "synthetic", "--hosts", "10000000"], "from one host"),
    ]:
        refused = run(*args)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr
    missing = run("--trace", str(tmp_path / "none.csv"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "cannot be read" in missing.stderr
