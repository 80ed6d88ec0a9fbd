"""The host's pressure is watched while there is something to take back: above its limit, pools
and spot make room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sublet.domain.capacity import Amount
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
        """Look every two seconds, for ever; not at all where no spot instance runs or waits, no
        pool has a sandbox, and the host was short of nothing."""
        if not self._limits:
            return
        with self._market.claims.listen() as news:
            while True:
                news.clear()
                if busy := self._busy():
                    self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL if busy else None):
                        await news.wait()
                    await asyncio.sleep(INTERVAL if busy else 0)

    def _busy(self) -> bool:
        market = self._market
        spot = market.holdings.running() or market.requests.wanted()
        return bool(market.pressed or spot or market.spares.ready())

    def look(self) -> None:
        """See whether the host is under pressure, and take back what relieves it."""
        market = self._market
        averages = felt({what: self._read(what) for what in self._limits}, self._available())
        short = pressed(market.pressed, averages, self._limits)
        if short != market.pressed:
            market.press(short)
        if short and market.now() >= self._until:
            self._until = market.now() + self._relieve(short)

    def _relieve(self, short: str) -> float:
        """Take back the memory that ready sandboxes of pools have and nobody uses (they idle: of
        CPUs and disks they take nothing), else a part of what spot holds; the seconds until one
        sees what it has brought."""
        market = self._market
        if short == "memory" and market.spares.give(market.spares.room()) != Amount():
            return SETTLE
        return market.config.notice + SETTLE if market.holdings.relieve(PART) else 0.0
