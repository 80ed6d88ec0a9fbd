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
