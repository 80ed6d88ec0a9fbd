"""How instances end: stopped, killed, waited for, removed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import replace

from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import HELD, LIVE, Instance, State
from sublet.domain.signals import signal_number
from sublet.drivers import trace
from sublet.engine.lifecycle import LOST, Lifecycle

STOP_TIMEOUT = 10.0
KILL_DEADLINE = 30.0


def stop_signal(lifecycle: Lifecycle, instance: Instance) -> int:
    """What asks the instance to end."""
    image = lifecycle.parts.image_store.get(instance.digest)
    name = instance.spec.stop_signal or (image.config.stop_signal if image else "")
    try:
        return signal_number(name or "SIGTERM")
    except InvalidArgument:
        return signal.SIGTERM  # an image's nonsense must not make it unstoppable


def unwanted(lifecycle: Lifecycle, instance: Instance) -> Instance:
    """The user has ended it: no restart policy brings it back."""
    if instance.wanted:
        instance = replace(instance, wanted=False)
        lifecycle.parts.store.update(instance)
    return instance


async def kill(lifecycle: Lifecycle, instance: Instance, number: int) -> None:
    """Send a signal to the first process. What ends a paused instance thaws it; any other
    signal reaches it when it goes on."""
    if number in (signal.SIGKILL, stop_signal(lifecycle, instance)):
        if instance.state is not State.PENDING:  # that holds its room because it is wanted
            instance = unwanted(lifecycle, instance)
        await send(lifecycle, instance, number)
        await thaw(lifecycle, instance)
    else:
        await send(lifecycle, instance, number)


async def send(lifecycle: Lifecycle, instance: Instance, number: int) -> None:
    """Hand a signal to whoever runs the instance."""
    runner = lifecycle.parts.runner(instance)
    await runner.signal(instance.id, instance.pid, instance.pid_start, number)


async def thaw(lifecycle: Lifecycle, instance: Instance) -> None:
    """Let a paused instance's processes run again; it is still shown as it was."""
    if instance.state is State.PAUSED:
        with contextlib.suppress(WrongState):  # a VM that was killed has nothing to thaw
            await lifecycle.parts.runner(instance).freeze(instance.id, False)


async def stop(lifecycle: Lifecycle, instance: Instance, timeout: float | None) -> None:
    """Ask a live instance to end; kill it after `timeout` seconds (None: its own, or 10)."""
    if timeout is None:
        timeout = instance.spec.stop_timeout
    instance = unwanted(lifecycle, instance)
    paused = instance
    if instance.state is not State.STOPPING:
        instance = lifecycle.move(instance, State.STOPPING)
    await send(lifecycle, instance, stop_signal(lifecycle, instance))
    await thaw(lifecycle, paused)
    await ended(lifecycle, instance, STOP_TIMEOUT if timeout is None else timeout)


async def ended(lifecycle: Lifecycle, instance: Instance, timeout: float) -> None:
    """Wait for the end, and after `timeout` seconds enforce it."""
    future = lifecycle.exits.get(instance.id)
    if future is None:
        return
    done, _ = await asyncio.wait([future], timeout=timeout)
    if not done:
        await send(lifecycle, instance, signal.SIGKILL)
        await lifecycle.visits.end(instance.id)  # a commit may have frozen it
        done, _ = await asyncio.wait([future], timeout=KILL_DEADLINE)
    if not done:
        raise WrongState(
            f"{instance.name} did not end within {KILL_DEADLINE:g} s of SIGKILL.",
            hint="Its processes may hang in the kernel; `sublet inspect` gives the pid.",
        )


async def remove(
    lifecycle: Lifecycle, instance: Instance, *, force: bool, volumes: bool = False
) -> None:
    """Delete the instance and everything that it had, with `volumes` its volumes without a
    name as well; a running one only with `force`."""
    if not force:
        _check_ended(instance)
    if instance.state in LIVE or instance.state is State.PENDING:
        await kill(lifecycle, instance, signal.SIGKILL)
        await ended(lifecycle, instance, 0)
    elif instance.state is State.HIBERNATING:  # its guest may keep whoever saves it waiting
        await send(lifecycle, instance, signal.SIGKILL)
    await lifecycle.visits.end(instance.id)
    async with lifecycle.locks.hold(instance.id, "remove"):
        current = lifecycle.parts.store.get(instance.id)
        if current is not None:
            if not force:  # it may have been started, or woken, by who had the lock before
                _check_ended(current)
            with trace.request("remove", instance.id):
                await lifecycle.remove(current, volumes=volumes)


def _check_ended(instance: Instance) -> None:
    if instance.state in HELD or instance.state is State.PENDING:
        raise WrongState(
            f"{instance.name} is {instance.state}.",
            hint=f"Stop it first (`sublet stop {instance.name}`), or use `sublet rm -f`.",
        )


def exit_code(instance: Instance) -> int:
    """The code of one that does not run; 0 where it never ran, as Docker has it."""
    if instance.exit_code is not None:
        return instance.exit_code
    return LOST if instance.started else 0
