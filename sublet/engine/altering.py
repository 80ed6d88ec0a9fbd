"""What is altered of an instance that exists: paused, renamed, resized."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from sublet.domain.capacity import Amount
from sublet.domain.change import Change, admit_change, changed
from sublet.domain.errors import InvalidArgument, NoSuchInstance, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.names import validate_new_name
from sublet.drivers import counters
from sublet.engine.lifecycle import Lifecycle


@contextlib.asynccontextmanager
async def _held(lifecycle: Lifecycle, instance: Instance, action: str) -> AsyncIterator[Instance]:
    """The row as it is under the instance's lock."""
    async with lifecycle.locks.hold(instance.id, action):
        current = lifecycle.parts.store.get(instance.id)
        if current is None:
            raise NoSuchInstance(f"The instance {instance.name} is gone.")
        yield current


async def pause(lifecycle: Lifecycle, instance: Instance) -> None:
    """Freeze all processes of a running instance, until `unpause`."""
    async with _held(lifecycle, instance, "pause") as current:
        if current.state is not State.RUNNING:
            raise WrongState(f"{current.name} is {current.state}, not running.")
        await lifecycle.parts.containers.cgroups.freeze(current.id, True)
        _settle(lifecycle, current.id, State.RUNNING, State.PAUSED)


async def unpause(lifecycle: Lifecycle, instance: Instance) -> None:
    """Let a paused instance go on."""
    async with _held(lifecycle, instance, "unpause") as current:
        if current.state is not State.PAUSED:
            raise WrongState(f"{current.name} is {current.state}, not paused.")
        await lifecycle.parts.containers.cgroups.freeze(current.id, False)
        _settle(lifecycle, current.id, State.PAUSED, State.RUNNING)


def _settle(lifecycle: Lifecycle, instance_id: str, old: State, new: State) -> None:
    """Write the new state, unless the instance was stopped meanwhile: that needs no lock."""
    current = lifecycle.parts.store.get(instance_id)
    if current is not None and current.state is old:
        lifecycle.move(current, new)


async def rename(lifecycle: Lifecycle, instance: Instance, name: str) -> None:
    """Give the instance another name, by which others on its network find it as well."""
    validate_new_name(name)
    parts = lifecycle.parts
    async with _held(lifecycle, instance, "rename") as current:
        if name == current.name:
            raise InvalidArgument(f"{name} is its name already.", hint="Give another one.")
        renamed = replace(current, name=name)
        parts.store.update(renamed)
        if renamed.state in LIVE:
            await parts.network.announce(lifecycle.connections.endpoint(renamed))
        lifecycle.tell("renamed", renamed, old_name=current.name)


async def update(
    lifecycle: Lifecycle, instance: Instance, change: Change, free: Callable[[], Amount]
) -> None:
    """Change limits, restart policy or time to live; the limits of a running one at once."""
    parts = lifecycle.parts
    async with _held(lifecycle, instance, "update") as current:
        spec = changed(current.spec, change)
        if current.state in LIVE and _limits(spec) != _limits(current.spec):
            used = counters.memory(parts.containers.cgroups, current.id)
            admit_change(current.spec, spec, free(), used)
            parts.containers.cgroups.limit(current.id, spec.size, spec.pids_limit)
        if spec.disk != current.spec.disk:
            await parts.containers.writable.grow(current.id, spec.disk)
        altered = replace(current, spec=spec)
        parts.store.update(altered)
        lifecycle.tell("updated", altered, size=str(spec.size))


def _limits(spec: object) -> tuple[object, ...]:
    return tuple(getattr(spec, name) for name in ("cpus", "memory", "pids_limit"))
