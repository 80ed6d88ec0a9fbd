"""Budgets, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_meter import Lab as MeterLab

from sublet.domain.budget import (
    NONE,
    Budget,
    Level,
    Period,
    Standing,
    bounds,
    next_look,
    parse_budget,
    parse_label,
)
from sublet.domain.change import Change, changed
from sublet.domain.errors import BudgetExhausted, InvalidArgument, NoSuchBudget
from sublet.domain.instance import State
from sublet.domain.spec import InstanceSpec, Market, check_spec
from sublet.drivers.store.budgets import BudgetStore
from sublet.drivers.store.database import Database
from sublet.engine.budgets import Budgets
from sublet.engine.events import Events
from sublet.engine.tasks import Tasks


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_budgets_as_people_write_them() -> None:
    assert parse_budget("5/month") == Budget(5.0, Period.MONTH)
    assert parse_budget(" $0.50/day ") == Budget(0.5, Period.DAY)
    assert parse_budget("none") == parse_budget("0") == NONE
    assert str(Budget(0.5, Period.WEEK)) == "$0.5/week"
    for wrong in ("5", "5/year", "-1/day", "0/day", "x/day", "5/month/day", "1e9/day", "nan/day"):
        with pytest.raises(InvalidArgument):
            parse_budget(wrong)
    assert parse_label("label=team=a=b") == ("team", "a=b")
    assert parse_label("label=team=") == ("team", "")
    assert parse_label("label=team") is None
    assert parse_label("team") is None


@pytest.mark.parametrize(
    ("period", "now", "begin", "end"),
    [
        (Period.DAY, "2026-03-29T12:00", "2026-03-29", "2026-03-30"),
        (Period.WEEK, "2026-03-01T23:59", "2026-02-23", "2026-03-02"),
        (Period.WEEK, "2026-03-02", "2026-03-02", "2026-03-09"),
        (Period.MONTH, "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2028-02-29", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_are_the_calendars(period: Period, now: str, begin: str, end: str) -> None:
    assert bounds(period, at(now)) == (at(begin), at(end))


@given(st.sampled_from(Period), st.floats(0, 4e9))
def test_each_moment_is_in_its_period(period: Period, now: float) -> None:
    begin, end = bounds(period, now)
    assert begin <= now < end
    assert bounds(period, end)[0] == end


@given(st.floats(0.01, 100), st.floats(0, 200), st.floats(0, 50), st.floats(1, 1e6))
def test_the_next_look_is_when_something_can_change(
    amount: float, spent: float, rate: float, left: float
) -> None:
    standing = Standing("a", Budget(amount), spent, rate, 1000.0 + left)
    moment = next_look([standing], 1000.0)
    assert moment is not None
    assert 1000.0 <= moment <= standing.renews
    then = replace(standing, spent=spent + rate * (moment - 1000.0) / 3600 * (1 - 1e-9))
    if moment > 1000.0:
        assert then.level <= standing.level + (then.share > 1 - 1e-6 or then.share > 0.8 - 1e-6)
    after = replace(standing, spent=spent + rate * (moment - 1000.0) / 3600 * (1 + 1e-6) + 1e-9)
    assert after.level > standing.level or moment == standing.renews
    assert next_look([], 0.0) is None


def test_a_request_and_its_change() -> None:
    spec = InstanceSpec(image="i", cpus=1, memory=1 << 30)
    with pytest.raises(InvalidArgument, match="buys nothing"):
        check_spec(replace(spec, budget=NONE))
    with pytest.raises(InvalidArgument, match="buys nothing"):
        check_spec(replace(spec, budget=Budget(1e-320)))
    given = changed(spec, Change(budget=Budget(5)))
    assert given.budget == Budget(5)
    assert changed(given, Change(budget=NONE)).budget is None


class Lab(MeterLab):
    """A meter, and budgets that stop instances by their rows alone. An hour costs a dollar."""

    def __init__(self, path: Path) -> None:
        self.changed = asyncio.Event()
        super().__init__(path)
        self.clocks.wall = at("2026-06-15T00:00")

    def open(self) -> None:
        super().open()
        self.events = Events(self.store)
        self.notes: list[Any] = []
        self.lifecycle = SimpleNamespace(permit=None)
        self.tasks = Tasks()
        parts = SimpleNamespace(store=self.store, events=self.events, tasks=self.tasks)
        verbs = SimpleNamespace(
            parts=parts, lifecycle=self.lifecycle, notes=self.notes, stop=self.end,
            get=self.get, update=self.update,
        )  # fmt: skip
        self.budgets = Budgets(cast(Any, verbs), self.meter, BudgetStore(self.database), self.until)

    async def end(self, name: str) -> None:
        self.stop(name)

    def get(self, name: str) -> Any:
        return self.store.get(name)

    async def update(self, name: str, change: Change) -> Any:
        row = self.store.get(name)
        assert row
        self.store.update(replace(row, spec=changed(row.spec, change)))
        return self.store.get(name)

    async def until(self, moment: float | None, now: float) -> None:
        while moment is None or self.clocks.wall < moment:
            self.changed.clear()
            await self.changed.wait()

    async def pass_(self, seconds: float) -> None:
        self.clocks.go(seconds)
        self.changed.set()
        for _ in range(30):
            await asyncio.sleep(0)

    def told(self) -> list[tuple[str, str]]:
        return [(e.type, e.instance) for e in self.events_of("budget")]

    def events_of(self, kind: str) -> list[Any]:
        return [e for e in self.store.events() if e.type.startswith(kind)]

    def state(self, name: str) -> State:
        row = self.store.get(name)
        assert row
        return row.state

    def under(self, name: str, text: str = "", **labels: str) -> None:
        self.add(name)
        row = self.store.get(name)
        assert row
        own = parse_budget(text) if text else None
        self.store.update(replace(row, spec=replace(row.spec, budget=own, labels=labels)))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "db")
    watching = asyncio.ensure_future(made.budgets.watch())
    yield made
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    await made.tasks.close()


async def test_it_warns_stops_and_refuses_until_it_renews(lab: Lab) -> None:
    lab.under("a", "10/day")
    lab.start("a")
    await lab.pass_(8 * 3600 - 1)
    assert (lab.told(), lab.budgets.notes(lab.get("a"))) == ([], [])
    await lab.pass_(1.5)
    assert lab.told() == [("budget.warning", "a")]
    assert "is used to 80%" in lab.budgets.notes(lab.get("a"))[0]
    await lab.pass_(2 * 3600 - 2)
    assert lab.state("a") is State.RUNNING
    await lab.pass_(2)
    assert lab.state("a") is State.STOPPED
    assert lab.told()[1:] == [("budget.exhausted", "a")]
    with pytest.raises(BudgetExhausted, match="2026-06-16T00:00:00") as caught:
        lab.budgets.permit(lab.get("a").spec, "a")
    assert "sublet budget set a 20/day" in caught.value.hint
    await lab.pass_(14 * 3600)
    lab.budgets.permit(lab.get("a").spec, "a")
    poor = replace(lab.get("a").spec, budget=Budget(0.01, Period.DAY))
    for known in ("a", ""):
        with pytest.raises(BudgetExhausted, match="does not pay for a start"):
            lab.budgets.permit(poor, known)
    lab.start("a")
    await lab.pass_(3600)
    assert lab.state("a") is State.RUNNING
    assert len(lab.told()) == 2


async def test_a_raised_budget_goes_on_and_a_lowered_one_ends(lab: Lab) -> None:
    lab.under("a", "1/day")
    lab.start("a")
    await lab.pass_(3601)
    assert lab.state("a") is State.STOPPED
    await lab.budgets.put("a", Budget(5, Period.DAY))
    lab.budgets.permit(lab.get("a").spec, "a")
    lab.start("a")
    await lab.pass_(3600)
    assert lab.state("a") is State.RUNNING
    await lab.budgets.put("a", Budget(2, Period.DAY))
    await lab.pass_(0)
    assert lab.state("a") is State.STOPPED
    await lab.budgets.remove("a")
    lab.budgets.permit(lab.get("a").spec, "a")
    with pytest.raises(NoSuchBudget):
        await lab.budgets.remove("a")


async def test_a_label_has_one_budget_for_all(lab: Lab) -> None:
    for name, team in (("a", "x"), ("b", "x"), ("c", "y")):
        lab.under(name, team=team)
        lab.start(name)
    await lab.budgets.put("label=team=x", Budget(4, Period.WEEK))
    await lab.pass_(3600)
    lab.stop("b")
    lab.store.delete("b")
    await lab.pass_(1800)
    (standing,) = lab.budgets.every()
    assert (standing.spent, standing.rate) == (pytest.approx(2.5), 1.0)
    assert lab.budgets.reaches(standing) == pytest.approx(lab.clocks.wall + 1.5 * 3600)
    await lab.pass_(1.5 * 3600 + 1)
    assert (lab.state("a"), lab.state("c")) == (State.STOPPED, State.RUNNING)
    with pytest.raises(BudgetExhausted, match="label=team=x"):
        lab.budgets.permit(InstanceSpec(image="i", labels={"team": "x"}))
    lab.budgets.permit(InstanceSpec(image="i", labels={"team": "y"}))
    await lab.budgets.remove("label=team=x")
    with pytest.raises(NoSuchBudget):
        await lab.budgets.remove("label=team=x")


async def test_what_is_summed_up_is_what_was_charged(lab: Lab) -> None:
    """The sum that is kept of ended starts is the one that all segments give."""
    await lab.budgets.put("label=team=x", Budget(1000, Period.DAY))
    lab.under("a", team="x")
    lab.under("b", team="x")
    for seconds in (10.0, 500.0, 20_000.0, 50_000.0, 30_000.0):
        lab.start("a")
        if seconds > 100:
            lab.start("b")
        await lab.pass_(seconds)
        lab.stop("a")
        if seconds > 100:
            lab.stop("b")
        kept = lab.budgets.every()[0].spent
        lab.meter.undone()
        assert lab.budgets.every()[0].spent == pytest.approx(kept, abs=1e-6)


async def test_a_new_daemon_tells_nothing_twice(lab: Lab) -> None:
    lab.under("a", "10/day")
    lab.start("a")
    await lab.pass_(8.5 * 3600)
    assert lab.told() == [("budget.warning", "a")]
    lab.open()
    lab.meter.recover()
    watching = asyncio.ensure_future(lab.budgets.watch())
    await lab.pass_(10)
    assert len(lab.told()) == 1
    await lab.pass_(2 * 3600)
    assert lab.state("a") is State.STOPPED
    assert len(lab.told()) == 2
    watching.cancel()


async def test_a_price_that_moves_moves_the_moment(lab: Lab) -> None:
    lab.add("a", Market.SPOT)
    row = lab.store.get("a")
    assert row
    lab.store.update(replace(row, spec=replace(row.spec, budget=parse_budget("2/day"))))
    lab.share = 0.25
    lab.start("a")
    await lab.pass_(3600)
    assert lab.budgets.reaches(lab.budgets.every()[0]) == pytest.approx(lab.clocks.wall + 7 * 3600)
    lab.share = 1.0
    lab.meter.repriced()
    await lab.pass_(1.75 * 3600 - 2)
    assert lab.state("a") is State.RUNNING
    await lab.pass_(3)
    assert lab.state("a") is State.STOPPED
    assert lab.budgets.every()[0].level is Level.EXHAUSTED


def test_what_was_told_in_periods_that_are_over_is_forgotten(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    store, day = BudgetStore(database), 86400.0
    for number in range(100):
        store.tell(f"i{number}", 5.0, number * day, Level.WARNING)
    (kept,) = database.connection.execute("SELECT count(*) FROM budget_levels").fetchone()
    assert kept == 33
    assert store.told("i99", 5.0, 99 * day) is Level.WARNING
    database.close()
