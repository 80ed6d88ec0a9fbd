"""Blocking work on files needs no thread in the blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def each(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces."""
    return iter(pieces)


def pause(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)


def pulled(work: Callable[[Iterator[bytes]], T], pieces: Iterator[bytes]) -> T:
    """The result of `work` on the pieces."""
    return work(pieces)


class Background:
    """Work that goes on beside whatever its owner does, and ends with the process."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        from threading import Thread

        self._thread = Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def ended(self, deadline: float) -> bool:
        """Whether it ends within so many seconds."""
        self._thread.join(deadline)
        return not self._thread.is_alive()
