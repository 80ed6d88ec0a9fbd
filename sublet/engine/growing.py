"""A running VM gets more CPUs and memory without a start, where its guest can take them.

Its row has the new size, and so holds the host's capacity, before anything is plugged in; were the
daemon killed between, it would hold more than it has got, never less.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from sublet.domain.change import noted, postponed
from sublet.domain.errors import SubletError
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.machine import Room, vcpus
from sublet.drivers.vm.growing import Silent
from sublet.engine.lifecycle import Lifecycle


async def room(lifecycle: Lifecycle, instance: Instance) -> Room | None:
    """What can be plugged into a VM; None where its guest could not take it now."""
    if not instance.spec.vm or instance.state is not State.RUNNING:
        return None
    try:
        return await lifecycle.parts.machines.room(instance.id)
    except SubletError:
        return None


async def grow(lifecycle: Lifecycle, before: Instance, altered: Instance) -> Instance:
    """Plug in what `altered`, as its row is now, has more than the machine. Where the guest does
    not answer, it is noted for the next start; where QEMU refuses, the row is as `before`.
    The row as it is then."""
    spec = altered.spec
    try:
        taken = await lifecycle.parts.machines.grow(altered.id, vcpus(spec.size), spec.memory)
    except Silent:
        await lifecycle.anyway(_take_back(lifecycle, before, altered))
        taken = False
    except BaseException:
        await lifecycle.anyway(_take_back(lifecycle, before, before))
        raise
    row = lifecycle.parts.store.get(altered.id) or altered
    if not taken and row.state in LIVE:
        row = postponed(row, before.spec, spec)
        lifecycle.parts.store.update(row)
    return row


async def _take_back(lifecycle: Lifecycle, before: Instance, notes: Instance) -> None:
    """The size and the limits that a machine had before, but for memory that is plugged in: that
    stays in it until it ends; what else was altered, and its next start, as `notes` has it. One
    that has ended starts again with the new size."""
    parts, memory = lifecycle.parts, before.spec.memory
    with contextlib.suppress(SubletError):
        memory = max(memory, (await parts.machines.room(before.id)).memory)
    row = parts.store.get(before.id)
    if row is None or row.state not in LIVE:
        return
    spec = replace(notes.spec, cpus=before.spec.cpus, memory=memory)
    parts.store.update(noted(replace(row, spec=spec), notes))
    with contextlib.suppress(OSError):  # it ends, and its cgroups with it
        parts.machines.limit(row.id, spec.size, spec.pids_limit)
