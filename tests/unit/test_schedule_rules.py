"""What a schedule does when: on time, late, after an absence, when the clock is set."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_timers import YEAR, ZONES, at

from sublet.domain.errors import InvalidArgument
from sublet.domain.notice import Action
from sublet.domain.restart import RestartPolicy
from sublet.domain.schedules import (
    CORRECTION,
    GRACE,
    Missed,
    Outcome,
    Overlap,
    Run,
    Schedule,
    check_schedule,
    decide,
    meeting,
    upcoming,
)
from sublet.domain.spec import InstanceSpec
from sublet.domain.spot import Spot

BEGIN = at("2026-01-01T00:00:00+00:00")
DAY = 86400.0


def schedule(when: str = "30 2 * * *", zone: str = "UTC", **more: object) -> Schedule:
    values = {"start": "x", "created": BEGIN, "handled": BEGIN, **more}
    return Schedule("id", "s", when, zone, **values)  # type: ignore[arg-type]


def carried_out(
    rule: Schedule, begin: float, end: float
) -> tuple[Schedule, list[float], list[float]]:
    """A daemon that is up from `begin` to `end`, with a clock that goes: what it ran and missed."""
    now, ran, missed = begin, [], []
    while now <= end:
        decision = decide(rule, now)
        rule = replace(rule, handled=decision.handled)
        ran += [decision.run] if decision.run is not None else []
        missed += [decision.missed] if decision.missed is not None else []
        if decision.wake is None:
            break
        assert decision.wake > now
        now = decision.wake
    return rule, ran, missed


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("jitter", [0.0, 600.0])
def test_a_year_of_a_daemon_that_is_always_up(zone: str, jitter: float) -> None:
    rule = schedule(zone=zone, jitter=jitter)
    _, ran, missed = carried_out(rule, BEGIN, BEGIN + 365 * DAY)
    assert ran == rule.timer.following(BEGIN, len(ran))
    assert 364 <= len(ran) <= 365
    assert missed == []


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    spans=st.lists(st.tuples(st.floats(0.01, 20), st.floats(0.01, 20)), max_size=12),
    missed=st.sampled_from(Missed),
    jitter=st.sampled_from([0.0, 1800.0]),
)
def test_absences(
    zone: str, spans: list[tuple[float, float]], missed: Missed, jitter: float
) -> None:
    """However often the daemon is away: no time is run twice, none that it was up for is lost,
    and after an absence one run makes up for all, or none does."""
    rule, now = schedule(zone=zone, missed=missed, jitter=jitter), BEGIN
    ran: list[float] = []
    for up, down in spans:
        before = len(ran)
        expected = rule.timer.following(now, 40)
        rule, more, lost = carried_out(rule, now, now + up * DAY)
        ran += more
        assert len(lost) <= 1
        on_time = [time for time in expected if time + jitter <= now + up * DAY]
        assert set(on_time) <= set(ran)
        late = [time for time in ran[before:] if time < now]
        assert len(late) <= 1
        now += (up + down) * DAY
    assert ran == sorted(set(ran))


def test_a_late_run_is_no_missed_one() -> None:
    rule = schedule(missed=Missed.SKIP)
    due = at("2026-01-01T02:30:00+00:00")
    assert decide(rule, due + GRACE).run == due
    decision = decide(rule, due + GRACE + 1)
    assert (decision.run, decision.missed, decision.handled) == (None, due, due)
    assert decision.wake == due + DAY


def test_a_missed_run_is_made_up_for_once() -> None:
    rule = schedule()
    decision = decide(rule, BEGIN + 10 * DAY)
    assert decision.run == at("2026-01-10T02:30:00+00:00")
    assert decision.missed == at("2026-01-09T02:30:00+00:00")
    assert decide(replace(rule, handled=decision.handled), BEGIN + 10 * DAY).run is None


def test_a_clock_that_is_set_back_runs_nothing_twice() -> None:
    rule = schedule("0 * * * *")
    rule, ran, _ = carried_out(rule, BEGIN, BEGIN + DAY)
    back = BEGIN + DAY - CORRECTION + 1
    rule, again, _ = carried_out(rule, back, BEGIN + DAY)
    assert again == []
    assert decide(rule, back).wake == BEGIN + DAY + 3600
    assert ran[-1] == BEGIN + DAY


def test_a_clock_that_was_wrong_by_a_year_is_forgotten() -> None:
    rule = schedule(handled=BEGIN + YEAR)
    decision = decide(rule, BEGIN)
    assert (decision.run, decision.handled) == (None, BEGIN)
    assert decision.wake == at("2026-01-01T02:30:00+00:00")


def test_jitter_stays_before_the_next_time() -> None:
    rule = schedule("* * * * *", jitter=3600.0)
    times = upcoming(rule, BEGIN, 30)
    assert times == sorted(times)
    for due, begin in zip(rule.timer.following(BEGIN, 30), times, strict=True):
        assert due <= begin < due + 60
    assert upcoming(replace(rule, id="other"), BEGIN, 30) != times
    assert upcoming(replace(rule, enabled=False), BEGIN, 5) == []


@pytest.mark.parametrize("overlap", Overlap)
def test_runs_that_meet(overlap: Overlap) -> None:
    going = Run(1, "id", 0.0, Outcome.RUNNING)
    waiting = Run(2, "id", 0.0, Outcome.QUEUED)
    assert meeting(overlap, []) is None
    assert meeting(overlap, [going]) is overlap
    assert meeting(overlap, [going, waiting]) is Overlap.SKIP


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"when": "x"},
        {"timezone": "Mars"},
        {"name": "0123456789ab"},
        {"limit": -1.0},
        {"limit": 1e300},
        {"keep": 100},
        {"limit": float("nan")},
        {"jitter": float("inf")},
        {"keep": -1},
        {"start": ""},
        {"spec": InstanceSpec("i", cpus=1, memory=1 << 30)},
        {"start": "", "spec": InstanceSpec("i", cpus=1, memory=1 << 30, name="x")},
        {"start": "", "spec": InstanceSpec("i", cpus=1, memory=1 << 30, pids_limit=0)},
        {
            "start": "",
            "spec": InstanceSpec("i", cpus=1, memory=1 << 30, spot=Spot(None, Action.STOP, True)),
        },
        {
            "start": "",
            "spec": InstanceSpec("i", cpus=1, memory=1 << 30, restart=RestartPolicy("always")),
        },
    ],
)
def test_what_is_no_schedule(change: dict[str, object]) -> None:
    check_schedule(schedule(), BEGIN)
    with pytest.raises(InvalidArgument):
        check_schedule(replace(schedule(), **change), BEGIN)  # type: ignore[arg-type]
