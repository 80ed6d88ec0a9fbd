"""Deadlines of calls, blocking: connections of the calling thread heed them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sublet.domain.errors import TimeoutExceeded
from sublet.sdk._sync.connection import clock, left

T = TypeVar("T")


class Lock:
    """Lets one in at a time; who waits heeds the deadline."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        seconds = left()
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """What is done in the block takes at most so many seconds (inf: any number of them). Raises
    TimeoutExceeded, which says that it was `what`."""
    outer = getattr(clock, "until", math.inf)
    own = time.monotonic() + seconds
    clock.until = min(outer, own)
    try:
        yield
    except TimeoutError as error:
        if outer <= own:
            raise
        raise TimeoutExceeded(f"{what} took more than {seconds:g} s.") from error
    finally:
        clock.until = outer


def together(calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """What the calls give, all at once: each its result or its error."""
    with ThreadPoolExecutor(max(1, min(len(calls), 32))) as pool:
        done = [pool.submit(call) for call in calls]
    return [each.exception() or each.result() for each in done]
