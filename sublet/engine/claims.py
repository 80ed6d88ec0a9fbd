"""Who waits for room, in which order; and room that is kept for who is about to take it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator

from sublet.domain.capacity import Amount


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    found = Amount()
    for amount in amounts:
        found += amount
    return found


class Claims:
    """Claims on what is `unsold`, the earliest first; a claim is known by whatever key it has."""

    def __init__(self, unsold: Callable[[], Amount]) -> None:
        self._unsold = unsold
        self._claims: dict[object, Amount] = {}
        self._listeners: set[asyncio.Event] = set()

    def put(self, key: object, amount: Amount) -> None:
        """Claim so much, after those who do already."""
        self._claims[key] = amount

    def drop(self, key: object) -> None:
        """The room has been taken, or is not wanted any more."""
        self._claims.pop(key, None)

    @contextlib.contextmanager
    def held(self, key: object, amount: Amount) -> Iterator[None]:
        """A claim until the block ends."""
        self.put(key, amount)
        try:
            yield
        finally:
            self.drop(key)

    def free(self, key: object = None) -> Amount:
        """What nobody has bought or claims, but for the one of this key."""
        others = total(amount for other, amount in self._claims.items() if other != key)
        return self._unsold() - others

    def turn(self, key: object) -> Amount:
        """What those before the one of this key leave to it."""
        free = self._unsold()
        for other, amount in self._claims.items():
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
