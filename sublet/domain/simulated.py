"""What goes into a simulation, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sublet.domain.size import Size
from sublet.domain.spec import Market


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a trace: at `time` (seconds) the instance `id` is started or, with `size` None,
    stopped."""

    time: float
    id: str
    size: Size | None = None
    market: Market = Market.ON_DEMAND


@dataclass(frozen=True, slots=True)
class Sample:
    """At `time`: the shares of the fleet's vCPUs that each market holds, how many instances
    wait, and spot's share of the on-demand price."""

    time: float
    on_demand: float
    spot: float
    waiting: int
    factor: float


@dataclass(slots=True)
class Report:
    """What came of it. `revenue` in dollars by market; `utilisation` the share of all vCPUs that
    was sold, over the whole time."""

    placed: int = 0
    refused: int = 0
    reclaims: int = 0
    utilisation: float = 0.0
    revenue: dict[Market, float] = field(default_factory=lambda: dict.fromkeys(Market, 0.0))
    samples: list[Sample] = field(default_factory=list)
