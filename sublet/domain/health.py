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
"""Seconds between checks of what starts, at most, as with Docker."""

SOONEST = 0.05
"""Seconds until the first check."""

IMAGE_INTERVAL = 1.0
"""Seconds between the checks of an image, at least."""

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
    """`test` is the command, run without a shell.

    `interval`, `timeout`, `start_period` and `start_interval` in seconds; an instance is unhealthy
    after `retries` failures in a row that do not fall into its start period. What is empty is the
    image's, else 30 s, 30 s, 3, no start period, and 5 s between the checks of what starts, less
    in its first seconds; where all is empty, there is no check, whatever the image
    says.
    """

    test: tuple[str, ...] = ()
    interval: float = 0.0
    timeout: float = 0.0
    retries: int = 0
    start_period: float = 0.0
    start_interval: float = 0.0

    @property
    def patience(self) -> float:
        """Seconds after the start in which no failure counts: the start period, and what Docker
        does not look at all."""
        return max(self.start_period, self.interval)


DEFAULT = Healthcheck(interval=30.0, timeout=30.0, retries=3)


def check_health(check: Healthcheck) -> None:
    """Raises InvalidArgument where a time or a count is out of range."""
    times = {
        "interval": check.interval,
        "timeout": check.timeout,
        "start-interval": check.start_interval,
    }
    for name, value in times.items():
        if value and not 0.001 <= value < math.inf:
            raise InvalidArgument(
                f"{value} s is no health {name}.", hint=f"Write --health-{name} 30s."
            )
    if not 0 <= check.start_period < math.inf or not 0 <= check.retries <= 1000:
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

    A failure while it starts does not count, until the first success: that ends the start.
    """
    results = (*report.results, result)[-KEPT:]
    if result.exit_code == 0:
        return Report(Health.HEALTHY, 0, results)
    early = result.end - started < check.patience
    if report.health is Health.STARTING and early:
        return replace(report, results=results)
    streak = report.streak + 1
    health = Health.UNHEALTHY if streak >= check.retries else report.health
    return Report(health, streak, results)


def pause(report: Report, check: Healthcheck, age: float) -> float:
    """Seconds until the next check of an instance that started `age` seconds ago. Until it is
    healthy it is looked at more closely, in the first seconds most of all: who waits for it does
    not wait for an interval."""
    if report.health is not Health.STARTING or age >= check.patience:
        return check.interval
    close = check.start_interval or min(max(SOONEST, age / 2), START_INTERVAL)
    return min(check.interval, close)


def image_check(data: Mapping[str, Any]) -> Healthcheck | None:
    """The check of an image's configuration, None where it has none or what makes no sense.

    `Test` is `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`; times are in nanoseconds; 0 and
    what is missing stand for the defaults. An image is a stranger's: it has the host check its
    instances once a second at most.
    """
    words = data.get("Test")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    kind, *rest = words or ["NONE"]
    shell = kind == "CMD-SHELL" and len(rest) == 1
    if not rest or not (shell or kind == "CMD"):
        return None
    retries, interval = data.get("Retries"), _seconds(data.get("Interval"))
    early = _seconds(data.get("StartInterval"))
    return Healthcheck(
        test=(*_SHELL, *rest) if shell else tuple(rest),
        interval=max(interval, IMAGE_INTERVAL) if interval else 0.0,
        timeout=_seconds(data.get("Timeout")),
        retries=retries if type(retries) is int and 0 < retries <= 1000 else 0,
        start_period=_seconds(data.get("StartPeriod")),
        start_interval=max(early, IMAGE_INTERVAL) if early else 0.0,
    )


def effective(asked: Healthcheck | None, image: Mapping[str, Any]) -> Healthcheck | None:
    """The check that an instance gets: what the request says, the rest its image's, the rest the
    defaults; None for none."""
    if asked == Healthcheck():
        return None
    layers = [check for check in (asked, image_check(image), DEFAULT) if check]
    found = Healthcheck(
        test=next((check.test for check in layers if check.test), ()),
        interval=next(check.interval for check in layers if check.interval),
        timeout=next(check.timeout for check in layers if check.timeout),
        retries=next(check.retries for check in layers if check.retries),
        start_period=next((check.start_period for check in layers if check.start_period), 0.0),
        start_interval=next((c.start_interval for c in layers if c.start_interval), 0.0),
    )
    return found if found.test else None


def _seconds(value: object) -> float:
    """Nanoseconds in seconds, 0 for what is no time (of 1 ms to 292 years)."""
    sound = type(value) is int and 1_000_000 <= value < 1 << 63
    return value / _SECOND if sound and isinstance(value, int) else 0.0
