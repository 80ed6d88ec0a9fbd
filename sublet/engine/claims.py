"""Who waits for room, in which order; and room that is kept for who is about to take it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from sublet.domain.capacity import Amount


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    found = Amount()
    for amount in amounts:
        found += amount
    return found


class Claims:
    """Claims on what is `unsold`; a claim is known by whatever key it has. Room that is kept
    goes before all who wait, and of those the earliest is the first."""

    def __init__(self, unsold: Callable[[], Amount]) -> None:
        self._unsold = unsold
        self._kept: dict[object, Amount] = {}
        self._waiting: dict[object, Amount] = {}
        self._listeners: set[asyncio.Event] = set()

    def keep(self, key: object, amount: Amount) -> None:
        """So much is as good as sold: nobody who waits gets it."""
        self._kept[key] = amount

    def drop(self, key: object) -> None:
        """The room has been taken, or is not wanted any more."""
        self._kept.pop(key, None)
        self._waiting.pop(key, None)

    @contextlib.contextmanager
    def kept(self, key: object, amount: Amount) -> Iterator[None]:
        """Room that is kept until the block ends."""
        self.keep(key, amount)
        try:
            yield
        finally:
            self.drop(key)
            self.wake()

    @contextlib.contextmanager
    def waiting(self, key: object, amount: Amount) -> Iterator[None]:
        """Wait for so much, after those who do already, until the block ends."""
        self._waiting[key] = amount
        try:
            yield
        finally:
            self._waiting.pop(key, None)
            self.wake()

    def free(self, key: object = None) -> Amount:
        """What nobody has bought, keeps or waits for, but for the one of this key; one who keeps
        room has it before those who wait."""
        left = self._unsold() - _others(self._kept, key)
        return left if key in self._kept else left - _others(self._waiting, key)

    def turn(self, key: object) -> Amount:
        """What those before the one of this key, who waits, leave to it."""
        free = self._unsold() - _others(self._kept, key)
        for other, amount in self._waiting.items():
            if other == key:
                break
            free -= amount
        return free

    def wake(self) -> None:
        """Let all who wait look again."""
        for news in self._listeners:
            news.set()

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set when there may be more room, or another price."""
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            yield news
        finally:
            self._listeners.discard(news)


def _others(claims: Mapping[object, Amount], key: object) -> Amount:
    return total(amount for other, amount in claims.items() if other != key)
