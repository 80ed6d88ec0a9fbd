"""Health: what follows from the answers of a check."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import InvalidArgument
from sublet.domain.health import (
    KEPT,
    Health,
    Healthcheck,
    Report,
    Result,
    check_health,
    effective,
    following,
    image_check,
    pause,
)

CHECK = Healthcheck(("check",), interval=10, retries=3, start_period=60)


def after(codes: list[int], *, first: float = 100, check: Healthcheck = CHECK) -> Report:
    """The report after checks with these exit codes, ten seconds apart, the first at `first`
    seconds after the start."""
    report = Report()
    for number, code in enumerate(codes):
        time = first + 10 * number
        report = following(report, Result(time - 1, time, code, "said"), check, 0.0)
    return report


@pytest.mark.parametrize(
    ("codes", "first", "expected"),
    [
        ([], 100, (Health.STARTING, 0)),
        ([0], 100, (Health.HEALTHY, 0)),
        ([1, 1], 100, (Health.STARTING, 2)),
        ([1, 1, 1], 100, (Health.UNHEALTHY, 3)),
        ([1, 1, 0, 1], 100, (Health.HEALTHY, 1)),
        ([0, 1, 2, -1], 100, (Health.UNHEALTHY, 3)),
        ([1, 1, 1, 0], 100, (Health.HEALTHY, 0)),
        ([1, 1, 1, 1, 1], 5, (Health.STARTING, 0)),  # within the start period
        ([1] * 9, 5, (Health.UNHEALTHY, 3)),
        ([0, 1, 1, 1], 5, (Health.UNHEALTHY, 3)),  # a success ended the start period
    ],
)
def test_health_follows_from_the_answers(
    codes: list[int], first: float, expected: tuple[Health, int]
) -> None:
    report = after(codes, first=first)
    assert (report.health, report.streak) == expected
    assert len(report.results) == min(len(codes), KEPT)


@given(st.lists(st.sampled_from([0, 1]), max_size=30), st.integers(1, 5))
def test_unhealthy_means_as_many_failures_in_a_row(codes: list[int], retries: int) -> None:
    report = after(codes, check=Healthcheck(("c",), retries=retries))
    streaks = list(accumulate(codes, lambda streak, code: (streak + 1) * (code != 0)))
    assert report.streak == (streaks[-1] if streaks else 0)
    assert (report.health is Health.UNHEALTHY) == (report.streak >= retries)


def test_what_starts_is_looked_at_closely() -> None:
    """Nobody waits for a whole interval; the first that counts is at the interval, as before."""
    assert pause(Report(), CHECK, 0) == 0.05
    assert pause(Report(), CHECK, 1) == 0.5
    assert pause(Report(), CHECK, 30) == 5
    assert pause(Report(), CHECK, 60) == 10
    assert pause(Report(Health.HEALTHY), CHECK, 0) == 10
    check = Healthcheck(("c",), interval=30, retries=1)
    assert pause(Report(), check, 1) == 0.5
    assert pause(Report(), check, 30) == 30
    assert following(Report(), Result(28, 29.9, 1), check, 0).health is Health.STARTING
    assert following(Report(), Result(29.5, 30, 1), check, 0).health is Health.UNHEALTHY
    assert pause(Report(), Healthcheck(("c",), interval=1, start_period=9), 8) == 1
    assert pause(Report(), replace(CHECK, start_interval=2), 0) == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, None),
        ({"Test": ["NONE"]}, None),
        ({"Test": []}, None),
        ({"Test": ["CMD"]}, None),
        ({"Test": ["CMD-SHELL", "a", "b"]}, None),
        ({"Test": "CMD true"}, None),
        ({"Test": ["CMD", 5]}, None),
        ({"Test": ["OTHER", "x"]}, None),
        ({"Test": ["CMD", "x"], "Retries": 5000, "Interval": 10**400}, Healthcheck(("x",))),
        ({"Test": ["CMD", "x"], "Retries": True, "Timeout": "1s"}, Healthcheck(("x",))),
        ({"Test": ["CMD", "x"], "Interval": 1_000_000}, Healthcheck(("x",), interval=1)),
        ({"Test": ["CMD", "x", "y"]}, Healthcheck(("x", "y"))),
        ({"Test": ["CMD", "x"], "Interval": 0, "Retries": 0}, Healthcheck(("x",))),
        (
            {
                "Test": ["CMD-SHELL", "curl -f localhost"],
                "Interval": 5_000_000_000,
                "Timeout": 500_000_000,
                "StartPeriod": 1_000_000_000,
                "Retries": 2,
            },
            Healthcheck(("/bin/sh", "-c", "curl -f localhost"), 5, 0.5, 2, 1),
        ),
    ],
)
def test_the_check_of_an_image(data: dict[str, Any], expected: Healthcheck | None) -> None:
    assert image_check(data) == expected


def test_a_request_has_the_last_word() -> None:
    image = {"Test": ["CMD", "of-image"], "Timeout": 7_000_000_000}
    of_image = Healthcheck(("of-image",), 30, 7, 3)
    assert effective(None, image) == of_image
    assert effective(Healthcheck(("own",)), image) == replace(of_image, test=("own",))
    assert effective(Healthcheck(interval=2), image) == replace(of_image, interval=2)
    assert effective(Healthcheck(("own",), 1, 2, 4, 5), image) == Healthcheck(("own",), 1, 2, 4, 5)
    assert effective(Healthcheck(), image) is None
    assert effective(Healthcheck(interval=2), {}) is None
    assert effective(None, {}) is None


@pytest.mark.parametrize(
    "wrong", [{"interval": 1e-9}, {"timeout": -1}, {"retries": -1}, {"start_period": -1}]
)
def test_checks_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        check_health(Healthcheck(("c",), **wrong))
