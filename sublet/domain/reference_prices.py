"""What sizes cost elsewhere: a dated table of EC2's prices, or the user's own.

Both are in one format: comma-separated values under the header `type,vcpus,gib,on_demand,
spot_low,spot_high`, prices in dollars per hour, and above them lines `# source: …` and
`# date: …`.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument
from sublet.domain.size import Size
from sublet.domain.units import GIB

HEADER = ("type", "vcpus", "gib", "on_demand", "spot_low", "spot_high")

EC2 = """\
# source: SkyPilot's public AWS catalogue (v9), us-east-1, Linux; spot is the span over zones
# date: 2026-11-23
type,vcpus,gib,on_demand,spot_low,spot_high
t3.micro,2,1,0.0104,0.0036,0.0045
t3.medium,2,4,0.0416,0.0141,0.0158
t3.large,2,8,0.0832,0.0321,0.0484
m7i.large,2,8,0.1008,0.0316,0.0376
m7i.8xlarge,32,128,1.6128,0.5735,1.1154
u7in-32tb.224xlarge,896,32768,360.98695,,
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """A type that is offered elsewhere, in vCPUs, GiB and dollars per hour; `spot` is the middle
    of the span that it was seen in, None where there is none."""

    type: str
    cpus: float
    memory: float
    on_demand: float
    spot: float | None


@dataclass(frozen=True, slots=True)
class References:
    """A price table, where it is from and of when."""

    source: str
    date: str
    offers: tuple[Offer, ...]

    def smallest(self, size: Size) -> Offer | None:
        """The smallest type that holds a size."""
        fits = [o for o in self.offers if o.cpus >= size.cpus and o.memory * GIB >= size.memory]
        return min(fits, key=lambda o: (o.cpus, o.memory, o.on_demand), default=None)

    def hourly(self, size: Size) -> float | None:
        """What that costs on demand, in dollars per hour."""
        found = self.smallest(size)
        return found.on_demand if found else None


def parse(text: str, name: str) -> References:
    """The table in the text of the file `name`. Raises InvalidArgument, naming the line."""
    about, rows = {"source": name, "date": ""}, []
    header = False
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            about |= {key.strip(): value.strip()}
        elif not line.strip():
            continue
        elif not header:
            header = _fields(line) == list(HEADER)
            if not header:
                raise _malformed(name, number, f"the header is not {','.join(HEADER)}")
        else:
            rows.append(_offer(_fields(line), name, number))
    if not rows:
        raise _malformed(name, 1, "there is no price in it")
    return References(about["source"], about["date"], tuple(rows))


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line]))]


def _offer(fields: list[str], name: str, number: int) -> Offer:
    if len(fields) != len(HEADER):
        raise _malformed(name, number, f"it has {len(fields)} fields, not {len(HEADER)}")
    kind, *texts = fields
    try:
        values = [float(text) if text else None for text in texts]
    except ValueError:
        raise _malformed(name, number, "a field is not a number") from None
    cpus, memory, on_demand, low, high = values
    if not kind or cpus is None or memory is None or on_demand is None:
        raise _malformed(name, number, "type, vcpus, gib and on_demand have to be there")
    if not all(value is None or 0 <= value < math.inf for value in values):
        raise _malformed(name, number, "a number is below 0")
    spots = [value for value in (low, high) if value is not None]
    return Offer(kind, cpus, memory, on_demand, sum(spots) / len(spots) if spots else None)


def _malformed(name: str, number: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"The price file {name} cannot be read: line {number}: {what}.",
        hint=f"Its header is {','.join(HEADER)}; docs/cost.md shows one.",
    )
