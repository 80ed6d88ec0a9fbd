"""The host's pressure is watched while there is spot: above its limit, spot makes room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sublet.domain.pressure import PART, felt, pressed
from sublet.drivers import pressure
from sublet.engine.market import SpotMarket

INTERVAL, SETTLE = 2.0, 10.0
"""Seconds between looks; and after a reclaim until the averages tell what it has brought."""


class Pressure:
    """Watches the host of one market. `read` gives the percent of time for one resource,
    `available` the share of the host's memory that can be had."""

    def __init__(
        self,
        market: SpotMarket,
        read: Callable[[str], float] = pressure.average,
        available: Callable[[], float] = pressure.available,
    ) -> None:
        self._market, self._read, self._available = market, read, available
        self._limits = dict(market.config.pressure)
        self._until = 0.0

    async def watch(self) -> None:
        """Look every two seconds, for ever; not at all where no spot instance runs or waits."""
        if not self._limits:
            return
        with self._market.claims.listen() as news:
            while True:
                news.clear()
                busy = self._market.holdings.running() or self._market.requests.wanted()
                if busy or self._market.pressed:
                    self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL if busy else None):
                        await news.wait()
                    await asyncio.sleep(INTERVAL if busy else 0)

    def look(self) -> None:
        """See whether the host is under pressure, and take a part of what spot holds back."""
        market = self._market
        averages = felt({what: self._read(what) for what in self._limits}, self._available())
        short = pressed(market.pressed, averages, self._limits)
        if short != market.pressed:
            market.press(short)
        if short and market.now() >= self._until and market.holdings.relieve(PART):
            self._until = market.now() + market.config.notice + SETTLE
