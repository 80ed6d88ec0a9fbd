"""Containers and VMs of one image, measured on one host: what each takes, how many it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from sublet.domain.size import Size

PORTS_OF_A_BRIDGE = 1023
"""Instances that run on one network at once (Linux, BR_PORT_BITS)."""

LIMITS = {
    "memory": "memory measured",
    "disk": "disk measured",
    "network": "ports of one network",
    "memory_sold": "memory sold",
    "cpus_sold": "vCPUs sold",
}
"""What can end a host's room for more, in words. A host sells no memory twice, however little of
it is used: the last two are what it promises."""

PROMISED = ("memory_sold", "cpus_sold")


@dataclass(frozen=True, slots=True)
class Host:
    """What a host has for instances: bytes of memory less its reserve, vCPUs that it sells, and
    bytes that are free on its disk."""

    memory: int
    cpus: float
    disk: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Instances of one isolation that ran at once: milliseconds until each ran, bytes of each, and
    the bytes that are there once for all. `cold`: milliseconds of VMs that booted, instead of going
    on from a template."""

    starts: Sequence[float]
    memory: Sequence[int]
    disk: Sequence[int]
    processes: Sequence[int]
    shared_memory: Mapping[str, int]
    shared_disk: Mapping[str, int]
    cold: Sequence[float] = ()

    def report(self, size: Size, host: Host) -> dict[str, object]:
        """As plain data: medians, totals, and how many of `size` the host would hold."""
        memory, disk = median(self.memory), median(self.disk)
        common = sum(self.shared_memory.values())
        return {
            "start_ms": round(median(self.starts), 1),
            "cold_start_ms": round(median(self.cold), 1) if self.cold else None,
            "memory": _amounts(memory, common, sum(self.memory)),
            "disk": _amounts(disk, sum(self.shared_disk.values()), sum(self.disk)),
            "processes": median(self.processes),
            "holds": holds(memory, common, disk, size, host),
            "starts_ms": [round(each, 1) for each in self.starts],
            "cold_starts_ms": [round(each, 1) for each in self.cold],
        }


def _amounts(each: float, shared: int, sum_of_all: int) -> dict[str, int]:
    """`each` of its own, `shared` once, and the `total` of those that ran."""
    return {"each": round(each), "shared": shared, "total": sum_of_all + shared}


def holds(memory: float, shared: int, disk: float, size: Size, host: Host) -> dict[str, object]:
    """How many a host has room for: `by` each of LIMITS; `fits`, by what was measured alone; and
    in all. Each time the one that is reached first.

    `memory`, `disk`: bytes of one more, `shared`: bytes of all together. What takes nothing that
    could be measured sets no limit.
    """
    rooms = {
        "memory": (host.memory - shared) / memory if memory else None,
        "disk": host.disk / disk if disk else None,
        "network": PORTS_OF_A_BRIDGE,
        "memory_sold": host.memory / size.memory,
        "cpus_sold": host.cpus / size.cpus,
    }
    by = {key: max(0, int(room)) for key, room in rooms.items() if room is not None}
    fits = {key: room for key, room in by.items() if key not in PROMISED}
    return {**_least(by), "fits": _least(fits), "by": by}


def _least(by: Mapping[str, int]) -> dict[str, object]:
    limit = min(by, key=lambda key: by[key])
    return {"count": by[limit], "limit": limit}
