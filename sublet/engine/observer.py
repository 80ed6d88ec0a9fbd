"""Who wants to know what becomes of instances: health checks, restart policies, the meter."""

from __future__ import annotations

from typing import Protocol

from sublet.domain.instance import Instance
from sublet.domain.notice import Notice


class Observer(Protocol):
    """Who is told, in the same breath, what becomes of instances; it must not wait."""

    def up(self, instance: Instance) -> None:
        """It runs, or was found running."""

    def ended(self, instance: Instance) -> None:
        """It has stopped, and is cleaned up."""

    def gone(self, instance_id: str) -> None:
        """It is deleted."""


class NoticeObserver(Protocol):
    """Who is told, in the same breath, of notices; it must not wait."""

    def noticed(self, notice: Notice) -> None:
        """An instance has been given notice."""

    def withdrawn(self, notice: Notice) -> None:
        """It is over before its deadline: the instance has ended, or a rehearsal has."""
