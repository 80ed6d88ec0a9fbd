"""The spot price as it moves: slowly after the share of the host that on-demand uses.

The price is quoted in steps, and each is kept, so that a bill can be checked against the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from sublet.domain.market import moved, quoted, target
from sublet.drivers.store.market import MarketStore, Quote

KEPT_FOR = 90 * 86400.0
"""Seconds that the history goes back, as EC2's does."""


class Pricing:
    """`used` tells the share of the capacity that on-demand uses; `lag` as of `market.moved`.
    Whoever is in `observers` is told that the price has another quote."""

    def __init__(
        self,
        store: MarketStore,
        used: Callable[[], float],
        lag: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._used, self._lag, self._now = store, used, lag, now
        store.forget_quotes(now() - KEPT_FOR)
        last = store.last_quote()
        self._exact = last.factor if last else target(used())
        self._looked = last.time if last else now()
        self.factor = quoted(self._exact)
        self._target = target(used())
        self._news = asyncio.Event()
        self.observers: list[Callable[[], None]] = []
        if last is None:
            store.add_quote(Quote(self._looked, self.factor, used()))

    def changed(self) -> None:
        """What on-demand uses may have changed."""
        to = target(self._used())
        if to != self._target:
            self._step()  # up to now it went where it was to go before
            self._target = to
            self._news.set()

    def look(self) -> bool:
        """Move the price to where it is now; whether it moves on."""
        self._step()
        if self.factor != quoted(self._exact):
            self.factor = quoted(self._exact)
            self._store.add_quote(Quote(self._now(), self.factor, self._used()))
            self._store.forget_quotes(self._now() - KEPT_FOR)
            for observer in self.observers:
                observer()
        return self._exact != self._target

    def _step(self) -> None:
        now = self._now()
        self._exact = moved(self._exact, self._target, now - self._looked, self._lag)
        self._looked = now

    async def watch(self) -> None:
        """Follow the market, for ever; nothing is done while the price stands still."""
        pace = min(10.0, max(0.2, self._lag / 30))
        while True:
            self._news.clear()
            moving = self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace if moving else None):
                    await self._news.wait()
