"""Health checks: a command run in the instance now and then, and what follows from its answers.

Source: OCI image specification, `config.md` (Healthcheck, as Docker writes it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sublet.domain.errors import InvalidArgument

KEPT = 5
"""Results that are kept of an instance."""

OUTPUT_LIMIT = 4096
"""Bytes that are kept of what a check writes."""

START_INTERVAL = 5.0
"""Seconds between checks in a start period, at most."""

TIMED_OUT = -1
"""The exit code of a check that was killed because it took too long, as Docker gives it."""

_SECOND = 1_000_000_000
_SHELL = ("/bin/sh", "-c")


class Health(StrEnum):
    """`none`: there is no check; `starting`: none has succeeded yet."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """`test` is the command, run without a shell; empty: no check, whatever the image says.

    `interval`, `timeout` and `start_period` in seconds; an instance is unhealthy after
    `retries` failures in a row that do not fall into its start period.
    """

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0


def check_health(check: Healthcheck) -> None:
    """Raises InvalidArgument where a time or a count is out of range."""
    for name, value in (("interval", check.interval), ("timeout", check.timeout)):
        if not 0.001 <= value < math.inf:
            raise InvalidArgument(
                f"{value} s is no health {name}.", hint=f"Write --health-{name} 30s."
            )
    if not 0 <= check.start_period < math.inf or not 1 <= check.retries <= 1000:
        raise InvalidArgument(
            "A health check has 1 to 1000 retries and a start period of 0 s or more.",
            hint="Write --health-retries 3 --health-start-period 10s.",
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One check: when it began and ended, in seconds since the epoch; its exit code; its output."""

    start: float
    end: float
    exit_code: int
    output: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of an instance's health: `streak` failures in a row, the last results."""

    health: Health = Health.STARTING
    streak: int = 0
    results: tuple[Result, ...] = ()


def following(report: Report, result: Result, check: Healthcheck, started: float) -> Report:
    """The report with one more result of an instance that runs since `started`.

    A failure in the start period does not count, until the first success: that ends it.
    """
    results = (*report.results, result)[-KEPT:]
    if result.exit_code == 0:
        return Report(Health.HEALTHY, 0, results)
    early = result.end - started < check.start_period
    if report.health is Health.STARTING and early:
        return replace(report, results=results)
    streak = report.streak + 1
    health = Health.UNHEALTHY if streak >= check.retries else report.health
    return Report(health, streak, results)


def pause(report: Report, check: Healthcheck) -> float:
    """Seconds until the next check: a start period is looked at more closely, as with Docker."""
    starting = report.health is Health.STARTING and check.start_period
    return min(check.interval, START_INTERVAL) if starting else check.interval


def image_check(data: Mapping[str, Any]) -> Healthcheck | None:
    """The check of an image's configuration, None where it has none or what makes no sense.

    `Test` is `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`; times are in nanoseconds; 0 and
    what is missing stand for the defaults.
    """
    words = data.get("Test")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    kind, *rest = words or ["NONE"]
    shell = kind == "CMD-SHELL" and len(rest) == 1
    if not rest or not (shell or kind == "CMD"):
        return None
    retries = data.get("Retries")
    check = Healthcheck(
        test=(*_SHELL, *rest) if shell else tuple(rest),
        interval=_seconds(data.get("Interval")) or 30.0,
        timeout=_seconds(data.get("Timeout")) or 30.0,
        retries=retries if type(retries) is int and retries > 0 else 3,
        start_period=_seconds(data.get("StartPeriod")),
    )
    try:
        check_health(check)
    except InvalidArgument:
        return None
    return check


def effective(asked: Healthcheck | None, image: Mapping[str, Any]) -> Healthcheck | None:
    """The check that an instance gets: the request's, else its image's; None for none."""
    found = image_check(image) if asked is None else asked
    return found if found is not None and found.test else None


def _seconds(value: object) -> float:
    return value / _SECOND if isinstance(value, int) and value > 0 else 0.0
