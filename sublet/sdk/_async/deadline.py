"""Deadlines of calls, awaited."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from sublet.domain.errors import TimeoutExceeded

T = TypeVar("T")
Lock = asyncio.Lock
"""Lets one in at a time."""


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """What is done in the block takes at most so many seconds (inf: any number of them). Raises
    TimeoutExceeded, which says that it was `what`."""
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutExceeded(f"{what} took more than {seconds:g} s.") from error


async def together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | BaseException]:
    """What the calls give, all at once: each its result or its error."""
    return list(await asyncio.gather(*(call() for call in calls), return_exceptions=True))
