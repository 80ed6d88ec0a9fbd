"""The bill: what the meter has charged, and what that would have cost otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from sublet.domain import bill, reference_prices, what_if
from sublet.domain.bill import Line, Span
from sublet.domain.config import Config
from sublet.domain.errors import InvalidArgument
from sublet.domain.meter import Reading
from sublet.domain.reference_prices import References
from sublet.domain.size import Size
from sublet.domain.what_if import Scenario
from sublet.engine.meter import Meter


@dataclass(frozen=True, slots=True)
class Plan:
    """What a month would cost: where its prices are from, and its scenarios."""

    prices: str
    scenarios: list[Scenario]


class Bills:
    """Makes bills of one daemon's meter; `factor` is spot's share of the on-demand price now."""

    def __init__(self, config: Config, meter: Meter, factor: Callable[[], float]) -> None:
        self._config, self._meter, self._factor = config, meter, factor

    async def lines(
        self, by: str, since: float, until: float, zone: tzinfo, instance: str = ""
    ) -> list[Line]:
        """The bill for the time between two moments, of all or of one instance. Raises
        InvalidArgument."""
        now, here = self._meter.now(), self._meter.here()
        return await asyncio.to_thread(
            lambda: bill.bill(
                self._spans(now, here, instance),
                by,
                since,
                until,
                zone,
                self.references().hourly,
            )
        )

    def _spans(self, now: Reading, here: set[str], instance: str) -> list[Span]:
        charges = self._meter.charges.all()
        wanted = [each for each in charges if not instance or bill.is_of(each, instance)]
        return bill.spans(wanted, now, here)

    def references(self) -> References:
        """The prices elsewhere: the user's own file, or those that come along. Raises
        InvalidArgument."""
        path = self._config.reference_prices
        if not path:
            return reference_prices.parse(reference_prices.EC2, "of EC2")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidArgument(
                f"The price file {path} cannot be read: {error.strerror}.",
                hint="`reference_prices` in config.toml names it.",
            ) from error
        except ValueError as error:
            raise InvalidArgument(f"The price file {path} is not text in UTF-8.") from error
        return reference_prices.parse(text, path)

    def what_if(
        self, size_name: str, hours: float, days: float, *, spot: bool = False, ec2: bool = False
    ) -> Plan:
        """What a size, such as 2x8 or one that has a name, would cost in a month, here or at
        reference prices. Raises InvalidArgument."""
        size = self._config.size_of(size_name)
        if ec2:
            return self._elsewhere(size, hours, days, spot)
        price, factor = self._config.prices.hourly(size), self._factor()
        found = what_if.what_if(price, price * factor, hours, days, wants_spot=spot)
        return Plan(f"this host's; spot at {factor:.0%} of on demand, as now", found)

    def _elsewhere(self, size: Size, hours: float, days: float, spot: bool) -> Plan:
        table = self.references()
        offer = table.smallest(size)
        if offer is None:
            raise InvalidArgument(
                f"The reference prices have no type that holds {size}.",
                hint="Ask for less, or name a table of your own: reference_prices in config.toml.",
            )
        found = what_if.what_if(offer.on_demand, offer.spot, hours, days, wants_spot=spot)
        source = f"{table.source}, {table.date}" if table.date else table.source
        return Plan(f"{offer.type}, spot at its middle ({source})", found)
