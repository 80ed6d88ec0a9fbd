"""Who runs instances: containers, and virtual machines."""

from __future__ import annotations

from typing import Protocol

from sublet.domain.size import Size
from sublet.drivers.container.streams import Streams


class Runner(Protocol):
    """What the engine asks of either kind alike, of an instance that runs."""

    def attach(self, instance_id: str) -> Streams:
        """The first process's streams, from now on. Raises OSError where it has ended."""

    async def signal(self, instance_id: str, pid: int, pid_start: int, number: int) -> None:
        """Send a signal to its first process; SIGKILL ends all of it. `pid` and `pid_start` name
        the process that stands for the instance on the host."""

    async def freeze(self, instance_id: str, frozen: bool) -> None:
        """Stop all that runs in it, or let it go on. Idempotent."""

    def limit(self, instance_id: str, size: Size, pids: int) -> None:
        """Set its limits. Raises OSError where the kernel refuses."""

    def exit_code(self, instance_id: str) -> int | None:
        """The exit code of one that has ended, None where nothing tells: it was killed."""

    def exit_time(self, instance_id: str) -> float | None:
        """When one that left an exit code ended, in seconds since the epoch."""

    async def delete(self, instance_id: str) -> None:
        """Remove what is left of one that was torn down: its files and its log. Idempotent."""


class Execution(Protocol):
    """A further process that was started in an instance."""

    @property
    def streams(self) -> Streams:
        """Its input and output."""

    async def wait(self) -> int:
        """The exit code; 128 + n for signal n, 137 where the instance ended with it."""

    def signal(self, number: int) -> None:
        """Send a signal to it."""

    async def kill(self) -> None:
        """Kill it, with all that it has started and has not been orphaned in another session."""

    def close(self) -> None:
        """End it, and its process group, if it still runs."""
