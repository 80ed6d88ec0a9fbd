"""What takes room on the host's disk, and what of it nobody needs: `system df`, `prune`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sublet.domain import restart, selection
from sublet.domain.disk_usage import Freed, Usage
from sublet.domain.errors import Busy, InvalidArgument, NoSuchInstance, WrongState
from sublet.domain.instance import Instance, State
from sublet.domain.networks import STANDARD
from sublet.domain.waking import sleeps
from sublet.drivers.vm.templates import Templates
from sublet.engine.instances import Instances
from sublet.engine.restarts import history
from sublet.engine.usage import written
from sublet.engine.verbs import Verbs


async def usage(verbs: Verbs) -> list[Usage]:
    """What each kind of thing takes. Reads directories: takes seconds where there is much."""
    instances = verbs.instances
    rows = instances.list(all=True)
    sizes = await asyncio.to_thread(written, instances.parts.containers, rows)
    idle = sum(sizes[row.id] for row in rows if _is_spare(row))
    active = sum(row.state is not State.STOPPED for row in rows)
    return [
        Usage("instances", len(rows), active, sum(sizes.values()), idle),
        *await verbs.images.usage(verbs.instances.digests),
        await verbs.volumes.usage(),
        await verbs.snapshots.usage(),
        _templates(instances.parts.machines.templates),
    ]


def _templates(templates: Templates) -> Usage:
    """The memory of booted VMs, from which others resume."""
    sizes, idle = templates.sizes(), templates.idle()
    free = sum(sizes[key] for key in idle)
    return Usage("templates", len(sizes), len(sizes) - len(idle), sum(sizes.values()), free)


async def templates(verbs: Instances, *, dry: bool = False) -> Freed:
    """Delete the templates that nobody starts from at the moment. `dry`: only tell."""
    kept = verbs.parts.machines.templates
    sizes, gone = kept.sizes(), kept.idle()
    if not dry:
        for key in gone:
            await kept.remove(key)
    return Freed("templates", tuple(gone), sum(sizes[key] for key in gone))


async def instances(verbs: Instances, filters: Sequence[str] = (), *, dry: bool = False) -> Freed:
    """Delete the instances that are stopped, and that no restart policy or connection starts again.
    `dry`: only tell. Raises InvalidArgument."""
    wanted = selection.parse(
        filters, time.time(), lambda text: verbs.get(text).created, selection.FOR_PRUNE
    )
    images = {image.digest: image for image in verbs.images.all()}
    rows = [row for row in verbs.list(all=True) if _is_spare(row)]
    rows = [row for row in rows if wanted.matches(row, images.get(row.digest))]
    sizes = await asyncio.to_thread(written, verbs.parts.containers, rows)
    gone = [row.id for row in rows if dry or await _removed(verbs, row.id)]
    return Freed("instances", tuple(gone), sum(sizes[name] for name in gone))


async def _removed(verbs: Instances, instance_id: str) -> bool:
    """Delete one, unless it is needed again by now."""
    row = verbs.parts.store.get(instance_id)
    if row is None or not _is_spare(row):
        return False
    try:
        await verbs.remove(instance_id)
    except (NoSuchInstance, WrongState, Busy):
        return False
    return True


def _is_spare(row: Instance) -> bool:
    again = restart.again(row.spec.restart, history(row)) or sleeps(row)
    return row.state is State.STOPPED and not again


async def system(
    verbs: Verbs,
    filters: Sequence[str] = (),
    *,
    everything: bool = False,
    volumes: bool = False,
    dry: bool = False,
) -> list[Freed]:
    """Delete stopped instances, networks without any, images without a name and, if asked,
    volumes without a name; with `everything`, all images that no instance is made of, and the
    templates of VMs.

    With `filters`, networks stay. `dry`: only tell. Raises InvalidArgument.
    """
    if volumes and filters:
        raise InvalidArgument(
            "Volumes are not pruned by filters.", hint="Prune them alone: sublet volume prune."
        )
    freed = [await instances(verbs.instances, filters, dry=dry)]
    leaving = frozenset(freed[0].ids) if dry else frozenset()
    if not filters:
        freed.append(await _networks(verbs, leaving, dry=dry))
    if volumes:
        found, size = await verbs.volumes.prune(dry=dry)
        freed.append(Freed("volumes", tuple(volume.name for volume in found), size))
    pruned = await verbs.images.prune(
        filters, everything=everything, in_use=lambda: verbs.instances.digests(leaving), dry=dry
    )
    digests = tuple(image.digest for image in pruned.images)
    freed.append(Freed("images", digests, pruned.size - pruned.cache))
    if everything and not filters:
        freed.append(await templates(verbs.instances, dry=dry))
    return [*freed, Freed("build cache", (), pruned.cache)]


async def _networks(verbs: Verbs, leaving: frozenset[str], *, dry: bool) -> Freed:
    networks = verbs.networks
    if not dry:
        return Freed("networks", tuple(await networks.prune()))
    rest = [
        network.name
        for network in networks.list()
        if network.id != STANDARD.id and not _members(verbs, network.name) - leaving
    ]
    return Freed("networks", tuple(rest))


def _members(verbs: Verbs, network: str) -> set[str]:
    """The ids of the instances on a network."""
    found = verbs.networks.members(verbs.networks.get(network))
    return {member.instance.id for member in found}
