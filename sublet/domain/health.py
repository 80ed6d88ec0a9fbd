"""Health checks: a command run in the instance now and then, and what follows from its answers.

Source: OCI image specification, `config.md` (Healthcheck, as Docker writes it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import InvalidArgument


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
