"""A VM's memory: kept on disk while it does not run, or while it is copied."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from sublet.domain.errors import HibernateNeedsVm, MemoryUnusable, WrongState
from sublet.domain.instance import Instance, State
from sublet.domain.waking import holds_ports
from sublet.drivers import files, trace
from sublet.drivers.vm.memory import MemoryImage
from sublet.engine.lifecycle import LOST, Lifecycle

_SPENT = "its memory was lost when it was woken; its disk is as after a power cut"


def check_vm(instance: Instance, what: str) -> None:
    """Raises HibernateNeedsVm for a container, of which `what` was asked."""
    if not instance.spec.vm:
        raise HibernateNeedsVm(f"{instance.name} is a container; {what} needs a VM.")


def check_running(instance: Instance) -> None:
    """Raises unless it is a running VM, whose memory can be kept."""
    check_vm(instance, "a snapshot with memory")
    if instance.state is not State.RUNNING:
        raise WrongState(
            f"{instance.name} is {instance.state}; only a running VM has memory to keep.",
            hint="Leave --memory out, or start it first.",
        )


@contextlib.asynccontextmanager
async def saved(lifecycle: Lifecycle, instance: Instance, target: Path) -> AsyncIterator[None]:
    """Save the memory of a running VM to `target`; it stands still until the block ends.

    For who has its lock. Raises DiskFull; what was at `target` before stays good then.
    """
    machines = lifecycle.parts.machines
    try:
        with trace.step("save memory"):
            await machines.save(instance.id, target)
        yield
    finally:
        await lifecycle.anyway(machines.resume(instance.id))


async def hibernate(lifecycle: Lifecycle, instance: Instance) -> None:
    """Keep the memory of a running VM on disk, and end it."""
    check_vm(instance, "hibernation")
    async with lifecycle.locks.hold(instance.id, "hibernate"):
        current = lifecycle.current(instance)
        if current.state not in (State.RUNNING, State.PAUSED):
            raise WrongState(
                f"{current.name} is {current.state}; only a running VM hibernates.",
                hint="`sublet ps -a` shows the states of all.",
            )
        with trace.request("hibernate", current.id):
            before, target = current.state, image(lifecycle, current).directory
            current = lifecycle.move(current, State.HIBERNATING)
            try:
                if holds_ports(current):  # from now on, it does not answer
                    await lifecycle.parts.network.ports.quiet(current.id, current.spec.ports)
                with trace.step("save memory"):
                    await lifecycle.parts.machines.save(current.id, target)
            except BaseException:
                await lifecycle.anyway(_go_on(lifecycle, current, before))
                raise
            await lifecycle.anyway(_end(lifecycle, current))


def image(lifecycle: Lifecycle, instance: Instance) -> MemoryImage:
    """Where the memory of a hibernated instance is kept."""
    layer = lifecycle.parts.containers.writable.layer(instance.id)
    return MemoryImage(layer.directory / "memory-image")


async def _go_on(lifecycle: Lifecycle, instance: Instance, before: State) -> None:
    """It does not hibernate after all."""
    await drop(lifecycle, instance)
    if lifecycle.alive(instance):
        try:
            if before is State.RUNNING:
                await lifecycle.parts.machines.resume(instance.id)
        finally:  # where QEMU does not answer, too: `rm -f` or `kill` ends it
            instance = lifecycle.move(instance, before)
            for port in instance.spec.ports if holds_ports(instance) else ():
                await lifecycle.parts.network.ports.open(instance.id, port)
    else:
        await _ended(lifecycle, lifecycle.move(instance, before))


async def _ended(lifecycle: Lifecycle, instance: Instance) -> None:
    """It ended before its memory was kept: as any other end."""
    code = lifecycle.parts.machines.exit_code(instance.id)
    await lifecycle.finish(instance.id, code)


async def _end(lifecycle: Lifecycle, instance: Instance) -> None:
    """Its memory is kept: take the machine away."""
    runner = lifecycle.parts.runner(instance)
    await runner.signal(instance.id, instance.pid, instance.pid_start, signal.SIGKILL)
    await lifecycle.visits.end(instance.id)
    await lifecycle.releases.release(instance.id)
    lifecycle.move(instance, State.HIBERNATED)


async def wake(lifecycle: Lifecycle, instance: Instance) -> None:
    """Let a hibernated VM go on where it was; one that runs is fine.

    Raises MemoryUnusable where its memory does not go on here: it stays as it is then.
    """
    check_vm(instance, "waking")
    async with lifecycle.locks.hold(instance.id, "wake"):
        current = lifecycle.current(instance)
        if current.state is State.RUNNING:
            return
        if current.state is not State.HIBERNATED:
            raise WrongState(
                f"{current.name} is {current.state}, not hibernated.",
                hint=f"`sublet start {current.name}` boots one that is stopped.",
            )
        with trace.request("wake", current.id):
            await _wake(lifecycle, current)


async def _wake(lifecycle: Lifecycle, instance: Instance) -> None:
    memory = image(lifecycle, instance)
    spent = memory.directory / "spent"
    try:
        started = await lifecycle.resume(instance, memory, lambda: spent.touch(mode=0o600))
    except BaseException as error:
        await lifecycle.anyway(_stay(lifecycle, instance, spent))
        if isinstance(error, MemoryUnusable):
            error.hint = (
                f"`sublet stop {instance.name}` drops its memory; "
                f"`sublet start {instance.name}` boots it then."
            )
        raise
    await drop(lifecycle, started)
    lifecycle.watch(started)


async def _stay(lifecycle: Lifecycle, instance: Instance, spent: Path) -> None:
    """It could not be woken. Memory that went on once does not go with its disk any more."""
    await lifecycle.releases.release(instance.id)
    if spent.exists():
        await forget(lifecycle, instance, reason=_SPENT)


async def forget(lifecycle: Lifecycle, instance: Instance, *, reason: str = "") -> None:
    """Drop the memory of a hibernated VM: it is stopped, as if its power had been cut. With `--rm`
    it is gone."""
    lifecycle.move(replace(instance, wanted=False), State.STOPPED, reason=reason)
    lifecycle.exits.end(instance.id, LOST)
    await drop(lifecycle, instance)
    if instance.spec.remove and instance.id not in lifecycle.restarting:
        await lifecycle.remove(lifecycle.current(instance), volumes=True)


async def drop(lifecycle: Lifecycle, instance: Instance) -> None:
    """Remove what is kept of the memory. Idempotent."""
    await files.remove(image(lifecycle, instance).directory)


async def recover(lifecycle: Lifecycle, instance: Instance) -> None:
    """Finish what a killed daemon was at with the memory of a VM that does not run."""
    memory = image(lifecycle, instance)
    if instance.state is State.HIBERNATING:
        if not memory.exists:
            await _ended(lifecycle, lifecycle.move(instance, State.RUNNING))
            return
        await lifecycle.releases.release(instance.id)
        instance = lifecycle.move(instance, State.HIBERNATED)
    if (memory.directory / "spent").exists() or not memory.exists:
        await lifecycle.releases.release(instance.id)
        await forget(lifecycle, instance, reason=_SPENT)
    else:
        lifecycle.exits.expect(instance.id)
