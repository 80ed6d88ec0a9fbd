"""What can be waited for, and when it has come, or cannot come any more."""

from __future__ import annotations

from enum import StrEnum

from sublet.domain.errors import NotHealthy
from sublet.domain.health import Health
from sublet.domain.instance import LIVE, Instance, State


class Condition(StrEnum):
    """`healthy` is `running` for an instance without a health check."""

    STOPPED = "stopped"
    RUNNING = "running"
    HEALTHY = "healthy"
    REMOVED = "removed"


def reached(condition: Condition, instance: Instance | None) -> bool:
    """Whether what is waited for is so; `instance` None: it is gone.

    Raises NotHealthy where it ended, or became unhealthy, before it was healthy, or ended
    before it ran.
    """
    if condition is Condition.REMOVED:
        return instance is None
    if condition is Condition.STOPPED:
        return instance is None or instance.state is State.STOPPED
    if instance is None:
        raise NotHealthy(f"It was deleted before it was {condition}.")
    if instance.state is State.STOPPED and instance.started:
        code = "" if instance.exit_code is None else f" with {instance.exit_code}"
        raise NotHealthy(f"{instance.name} ended{code} before it was {condition}.")
    if condition is Condition.RUNNING:
        return instance.state in LIVE
    if instance.health is Health.UNHEALTHY:
        raise NotHealthy(f"{instance.name} is unhealthy.")
    return instance.state in LIVE and instance.health in (Health.HEALTHY, Health.NONE)
