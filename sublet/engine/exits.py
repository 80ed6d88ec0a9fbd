"""Exit codes, for those who wait for an instance's end."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

KEPT = 1000
"""Exit codes of removed instances that are remembered for those who wait late."""


class Exits:
    """One future for each instance that runs, sleeps, or ran lately: its exit code when it has
    ended and is cleaned up. A VM that is hibernated has not ended."""

    def __init__(self) -> None:
        self._futures: OrderedDict[str, asyncio.Future[int]] = OrderedDict()

    def get(self, instance_id: str) -> asyncio.Future[int] | None:
        """The future; None where it never ran, or that was long ago."""
        return self._futures.get(instance_id)

    def expect(self, instance_id: str) -> None:
        """Its end is to come; who waits since before it was hibernated goes on waiting."""
        future = self._futures.get(instance_id)
        if future is None or future.done():
            self._futures[instance_id] = asyncio.get_running_loop().create_future()
        self._futures.move_to_end(instance_id)
        while len(self._futures) > KEPT and next(iter(self._futures.values())).done():
            self._futures.popitem(last=False)

    def end(self, instance_id: str, code: int) -> None:
        """Tell those who wait that it has ended."""
        future = self._futures.get(instance_id)
        if future and not future.done():
            future.set_result(code)
