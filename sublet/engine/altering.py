"""What is altered of an instance that exists: paused, renamed, resized."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from sublet.domain.capacity import Amount, admit
from sublet.domain.change import Change, admit_change, changed, divided, growth, noted
from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import HELD, LIVE, Instance, State, not_running
from sublet.domain.names import validate_new_name
from sublet.domain.spec import InstanceSpec
from sublet.drivers import counters, trace
from sublet.engine import growing
from sublet.engine.lifecycle import Lifecycle


@contextlib.asynccontextmanager
async def _held(lifecycle: Lifecycle, instance: Instance, action: str) -> AsyncIterator[Instance]:
    """The row as it is under the instance's lock."""
    async with lifecycle.locks.hold(instance.id, action):
        yield lifecycle.current(instance)


@contextlib.asynccontextmanager
async def still(lifecycle: Lifecycle, instance_id: str) -> AsyncIterator[bool]:
    """The instance's processes stand still until the block ends; False where none is running.

    For who has its lock: nobody else lets them go meanwhile. It is not shown as paused.
    """
    current = lifecycle.parts.store.get(instance_id)
    if current is None or current.state not in LIVE - {State.PAUSED}:
        yield False
        return
    if current.spec.vm:
        async with lifecycle.parts.machines.frozen(instance_id):
            yield True
        return
    runner = lifecycle.parts.runner(current)
    try:
        await runner.freeze(instance_id, True)
        yield True
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has ended, and its cgroup with it
            await runner.freeze(instance_id, False)


async def pause(lifecycle: Lifecycle, instance: Instance) -> None:
    """Freeze all processes of a running instance, until `unpause`."""
    async with _held(lifecycle, instance, "pause") as current:
        if current.state is not State.RUNNING:
            raise not_running(current.name, current.state)
        with trace.request("pause", current.id):
            with trace.step("freeze"):
                await lifecycle.parts.runner(current).freeze(current.id, True)
            with trace.step("row"):
                _settle(lifecycle, current.id, State.RUNNING, State.PAUSED)


async def unpause(lifecycle: Lifecycle, instance: Instance) -> None:
    """Let a paused instance go on."""
    async with _held(lifecycle, instance, "unpause") as current:
        if current.state is not State.PAUSED:
            raise WrongState(f"{current.name} is {current.state}, not paused.")
        with trace.request("unpause", current.id):
            with trace.step("thaw"):
                await lifecycle.parts.runner(current).freeze(current.id, False)
            with trace.step("row"):
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


async def room(
    lifecycle: Lifecycle, instance: Instance, spec: InstanceSpec, change: Change
) -> Amount:
    """The room that a change, after which it is `spec`, takes at once: none of one that does not
    run, nor for what a VM gets when it starts again, which asks for its room then."""
    if instance.state not in LIVE:
        return Amount()
    if instance.spec.vm:
        left, _ = divided(instance, change, await growing.room(lifecycle, instance))
        spec = changed(instance.spec, left) if left else instance.spec
    return growth(instance.spec, spec)


async def update(
    lifecycle: Lifecycle, instance: Instance, change: Change, free: Callable[[], Amount]
) -> None:
    """Change limits, restart policy or time to live; the limits of a running one at once, but
    for what a VM cannot have before its next start. More CPUs and memory are plugged into it.
    `free`: the room that it can have more."""
    parts = lifecycle.parts
    async with _held(lifecycle, instance, "update") as current:
        able = await growing.room(lifecycle, current)
        current = later = lifecycle.current(current)
        spec = changed(current.spec, change)
        if current.spec.vm and current.state in HELD | {State.HIBERNATED}:
            left, later = divided(current, change, able)
            spec = changed(current.spec, left) if left else current.spec
        if (
            current.state is State.PENDING
        ):  # its start, which has been admitted, is to have the lock
            admit(growth(current.spec, spec), free())
        live = current.state in LIVE and _limits(spec) != _limits(current.spec)
        if live:
            used = counters.memory(parts.containers.cgroups, current.id)
            admit_change(current.spec, spec, free(), used)
        if spec.disk != current.spec.disk and not spec.vm:  # a VM's grows when it starts
            await parts.containers.writable.grow(current.id, spec.disk)
        current = parts.store.get(current.id) or current  # its health may have changed meanwhile
        altered = noted(replace(current, spec=spec), later)
        with trace.request("update", current.id):
            with trace.step("row"):
                parts.store.update(altered)
            if live:
                with trace.step("limits"):
                    _limit(lifecycle, current, altered)
            if spec.egress != current.spec.egress and current.state in LIVE:
                with trace.step("egress"):
                    await parts.network.confine(lifecycle.connections.endpoint(altered))
            if spec.vm and current.state is State.RUNNING:
                altered = await growing.grow(lifecycle, current, altered)
        for told in lifecycle.updated:
            told(altered)
        lifecycle.tell("updated", altered, size=str(spec.size))


def _limit(lifecycle: Lifecycle, current: Instance, altered: Instance) -> None:
    """Give a running instance its new limits; if the kernel refuses, the old ones stay."""
    runner = lifecycle.parts.runner(current)
    try:
        runner.limit(altered.id, altered.spec.size, altered.spec.pids_limit)
    except OSError as error:
        lifecycle.parts.store.update(current)
        runner.limit(current.id, current.spec.size, current.spec.pids_limit)
        raise WrongState(
            f"The kernel refuses these limits for {current.name}: {error.strerror}.",
            hint="It may use more memory than that; stop something in it first.",
        ) from error


def _limits(spec: InstanceSpec) -> tuple[float, int, int]:
    return spec.cpus, spec.memory, spec.pids_limit
