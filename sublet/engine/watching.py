"""What instances do now: their use of the host, again and again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sublet.domain.instance import LIVE, Instance
from sublet.domain.stats import Counters, Look, cpu_percent
from sublet.drivers import counters
from sublet.drivers.network.identity import owner
from sublet.engine.instances import Instances

FIRST, INTERVAL = 0.5, 1.0
"""Seconds between the first two looks, and between later ones."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one instance uses: `cpu_percent` of one CPU, and its counters."""

    instance: Instance
    cpu_percent: float
    counters: Counters


async def stats(
    instances: Instances, names: list[str], *, all: bool, stream: bool
) -> AsyncIterator[list[Use]]:
    """What instances use, each second; the named ones, or those that run, or `all`.

    Without `stream`, once. Ends when no named one is left. Raises NoSuchInstance.
    """
    wanted = {instances.get(name).id for name in names}
    before: dict[str, Look] = {}
    pause = FIRST
    await asyncio.to_thread(_look, instances, _chosen(instances, wanted, all), before)
    while True:
        await asyncio.sleep(pause)
        pause = INTERVAL
        rows = _chosen(instances, wanted, all)
        if wanted and not rows:
            return
        yield await asyncio.to_thread(_look, instances, rows, before)
        if not stream:
            return


def _chosen(instances: Instances, wanted: set[str], everything: bool) -> list[Instance]:
    if wanted:
        return [row for row in instances.list(all=True) if row.id in wanted]
    return instances.list(all=everything)


def _look(instances: Instances, rows: list[Instance], before: dict[str, Look]) -> list[Use]:
    """One look at each; `before` has the last ones, and gets these."""
    cgroups, found, looks = instances.parts.containers.cgroups, [], {}
    names = [name for _, name in socket.if_nameindex()]
    for row in rows:
        pid = 0 if row.spec.network == "host" else row.pid  # that traffic is not its own
        taps = [name for name in names if owner(name) == row.id] if row.spec.vm else None
        counted = counters.read(cgroups, row.id, pid, taps) if row.state in LIVE else Counters()
        now = Look(time.monotonic(), counted)
        found.append(Use(row, cpu_percent(before.get(row.id), now), counted))
        looks[row.id] = now
    before.clear()
    before.update(looks)
    return found
