"""What a size would cost in a month: around the clock or only when it is used, spot or not."""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument
from sublet.domain.prices import MONTH


@dataclass(frozen=True, slots=True)
class Scenario:
    """`hours` in a month at `price` dollars per hour; `saving` in dollars against around the clock
    on demand; `chosen`: this is what was asked about. What has no price has no amount either."""

    scenario: str
    hours: float
    price: float | None
    amount: float | None
    saving: float | None
    chosen: bool = False


def what_if(
    on_demand: float, spot: float | None, hours: float, days: float, *, wants_spot: bool = False
) -> list[Scenario]:
    """The four scenarios of so many hours a day on so many days of a month. Raises
    InvalidArgument."""
    if not 0 < hours <= 24:
        raise InvalidArgument(f"A day has no {hours:g} hours.", hint="Write --hours 8.")
    if not 0 < days <= 31:
        raise InvalidArgument(f"A month has no {days:g} days.", hint="Write --days 22.")
    used, full = min(hours * days, MONTH), on_demand * MONTH
    rows = (
        ("around the clock on demand", MONTH, on_demand, False),
        ("only when used", used, on_demand, not wants_spot),
        ("spot around the clock", MONTH, spot, False),
        ("spot only when used", used, spot, wants_spot),
    )
    return [_scenario(name, h, price, full, chosen) for name, h, price, chosen in rows]


def _scenario(name: str, hours: float, price: float | None, full: float, chosen: bool) -> Scenario:
    amount = None if price is None else hours * price
    return Scenario(name, hours, price, amount, None if amount is None else full - amount, chosen)
