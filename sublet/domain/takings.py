"""What an imagined fleet takes, by the rules of the meter and the bill: by the second, a minute at
least for each start, and nothing for spot that is taken back in its first hour."""

from __future__ import annotations

from sublet.domain.meter import FREE, HOUR, MINIMUM
from sublet.domain.spec import Market


class Takings:
    """Dollars by market. Instances are not looked at while they run: a start notes what one that
    costs a dollar an hour has paid by then."""

    def __init__(self) -> None:
        self.revenue = dict.fromkeys(Market, 0.0)
        self._rate = dict.fromkeys(Market, 0.0)
        self._paid = dict.fromkeys(Market, 0.0)

    def go_on(self, seconds: float, factor: float) -> None:
        """So much time passes; spot pays the share `factor` of its on-demand price."""
        for market, rate in self._rate.items():
            paid = seconds / HOUR * _share(market, factor)
            self._paid[market] += paid
            self.revenue[market] += rate * paid

    def begin(self, market: Market, hourly: float) -> float:
        """An instance of so many dollars per hour on demand starts: what `end` is to be told."""
        self._rate[market] += hourly
        return self._paid[market]

    def end(
        self,
        market: Market,
        hourly: float,
        noted: float,
        ran: float,
        factor: float,
        *,
        reclaimed: bool,
    ) -> None:
        """It ends after `ran` seconds, taken back by the fleet or not."""
        self._rate[market] -= hourly
        if reclaimed and ran < FREE:
            self.revenue[market] -= hourly * (self._paid[market] - noted)
        elif ran < MINIMUM:
            rest = (MINIMUM - ran) / HOUR
            self.revenue[market] += hourly * _share(market, factor) * rest


def _share(market: Market, factor: float) -> float:
    return factor if market is Market.SPOT else 1.0
