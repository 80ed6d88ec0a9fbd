"""Who wants to know what becomes of instances: health checks, restart policies."""

from __future__ import annotations

from typing import Protocol

from sublet.domain.instance import Instance


class Observer(Protocol):
    """Who is told, in the same breath, what becomes of instances; it must not wait."""

    def up(self, instance: Instance) -> None:
        """It runs, or was found running."""

    def ended(self, instance: Instance) -> None:
        """It has stopped, and is cleaned up."""

    def gone(self, instance_id: str) -> None:
        """It is deleted."""
