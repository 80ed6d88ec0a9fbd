"""When: cron expressions and the like in time zones, over years with their clock changes."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublet.domain.errors import InvalidArgument
from sublet.domain.timers import Timer

YEAR = 366 * 86400.0
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
TEXTS = ("0 2 * * *", "30 2 * * *", "*/15 * * * *", "0 2 1 * *", "@weekly", "15 1,2,3 * * 0")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_of_nights(zone: str) -> None:
    """Once every day, at half past two; right after the gap where that does not exist."""
    begin = at("2025-12-31T12:00:00+00:00")
    times = Timer("30 2 * * *", zone).following(begin, 365)
    days = [shown(time, zone)[:10] for time in times]
    assert len(set(days)) == 365
    odd = [shown(time, zone) for time in times if "T02:30:00" not in shown(time, zone)]
    gaps = {
        "Europe/Berlin": ["2026-03-29T03:00:00+02:00"],
        "America/New_York": ["2026-03-08T03:00:00-04:00"],
        "Australia/Lord_Howe": [],  # its gap is of half an hour, from 2:00 to 2:30
        "Asia/Kolkata": [],
    }
    assert odd == gaps[zone]


def test_a_time_that_comes_twice_counts_once() -> None:
    times = Timer("30 2 * * *", "Europe/Berlin").following(at("2026-10-24T12:00:00+00:00"), 2)
    assert shown(times[0], "Europe/Berlin") == "2026-10-25T02:30:00+02:00"
    assert shown(times[1], "Europe/Berlin") == "2026-10-26T02:30:00+01:00"
    between = at("2026-10-25T01:10:00+00:00")  # after its first time, before its second
    assert Timer("30 2 * * *", "Europe/Berlin").next(between) == times[1]


def test_every_quarter_of_an_hour_of_a_long_day() -> None:
    begin = at("2026-10-25T00:00:00+02:00") - 1
    end = at("2026-10-26T00:00:00+01:00")
    times = Timer("*/15 * * * *", "Europe/Berlin").following(begin, 200)
    assert len([time for time in times if time < end]) == 25 * 4


@settings(max_examples=150, deadline=None)
@given(
    text=st.sampled_from(TEXTS),
    zone=st.sampled_from(ZONES),
    after=st.floats(at("2026-01-01T00:00:00+00:00"), at("2027-01-01T00:00:00+00:00")),
    later=st.floats(0, 40 * 86400.0),
)
def test_next_and_latest_agree(text: str, zone: str, after: float, later: float) -> None:
    timer, now = Timer(text, zone), after + later
    latest = timer.latest(after, now)
    first = timer.next(after)
    assert first is not None
    assert first > after
    if latest is None:
        assert first > now
        return
    assert after < latest <= now
    following = timer.next(latest)
    assert following is not None
    assert following > now


def test_intervals_are_counted_from_the_beginning() -> None:
    timer = Timer("every 6h", anchor=1000.0)
    assert timer.following(1000.0, 2) == [22600.0, 44200.0]
    assert timer.latest(1000.0, 1e9) == pytest.approx(1e9, abs=21600)
    assert timer.latest(1000.0, 22599.0) is None


def test_a_single_time() -> None:
    timer = Timer("at 2026-12-01T08:00", "Europe/Berlin")
    moment = at("2026-12-01T07:00:00+00:00")
    assert timer.next(moment - 1) == moment
    assert timer.next(moment) is None
    assert timer.latest(0.0, moment + YEAR) == moment
    assert Timer("at 2026-12-01T08:00:00Z").next(0.0) == moment + 3600


def test_a_long_absence_costs_no_time() -> None:
    """What passed meanwhile is not counted one by one."""
    begin = at("2000-01-01T00:00:00+00:00")
    assert Timer("* * * * *").latest(begin, begin + 30 * YEAR) == begin + 30 * YEAR
    assert Timer("every 1s", anchor=begin).latest(begin, begin + 30 * YEAR) == begin + 30 * YEAR


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1 2 3 4",
        "0 0 30 2 *",
        "1 2 3 4 5 6",
        "@reboot",
        "every",
        "every 0s",
        "at noon",
        "at 2020-01-01T00:00",
        "99 * * * *",
        "* * * * *" + " " * 300,
        "every 99999999999d",
        "every " + "9" * 180 + "d",
        "at 9999-12-31T23:59:59-12:00",
        "0 0 31 2,4,6,9,11 *",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Timer(text).check(datetime(2026, 11, 28, tzinfo=UTC).timestamp())


def test_nothing_comes_after_the_end_of_calendars() -> None:
    assert len(Timer("every 1000000d", anchor=0.0).following(1.8e9, 5)) == 2


def test_a_zone_that_is_no_more() -> None:
    """It was there when the schedule was made."""
    for text in ("@daily", "at 2027-01-01T00:00"):
        with pytest.raises(InvalidArgument):
            Timer(text, "Mars").next(0.0)


def test_an_interval_keeps_its_phase_when_the_clock_was_wrong_before() -> None:
    assert Timer("every 6h", anchor=1e9).next(1e9 - 50_000) == 1e9 - 2 * 21600


@pytest.mark.parametrize("zone", ["", "Mars", "../../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(InvalidArgument, match="time zone"):
        Timer("@daily", zone).check(0.0)
