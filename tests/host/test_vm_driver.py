"""A machine by its driver alone: what it runs, how it ends, how it is kept; nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from netlab import eventually
from vmlab import Collected, Lab, make_image

from sublet.domain.errors import CommandNotFound, MemoryUnusable, StartFailed
from sublet.drivers import files, processes
from sublet.drivers.container.supervisor import Started
from sublet.drivers.network.identity import veth
from sublet.drivers.vm.messages import Command
from sublet.drivers.vm.plan import MachinePlan
from sublet.drivers.vm.qmp import monitor

COUNTS = (
    "trap 'echo caught; exit 3' TERM; n=0; while :; do n=$((n+1)); echo $n >/n; sleep 0.05; done"
)
DEADLINE = 60.0


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, make_image(tmp_path), template_limit=1 << 30)
    await made.up()
    try:
        yield made
    finally:
        await made.down()


@contextlib.asynccontextmanager
async def pumped(started: Started) -> AsyncIterator[Collected]:
    """What its main process writes meanwhile."""
    assert started.streams
    got = Collected()
    task = asyncio.ensure_future(started.streams.pump(got))
    try:
        yield got
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        started.streams.close()


async def count(lab: Lab, plan: MachinePlan) -> int:
    """How far the guest has counted."""
    code, text = await lab.execute(plan, "cat", "/n")
    return int(text or 0) if code == 0 else 0


async def _running(lab: Lab, plan: MachinePlan, wanted: bool) -> bool:
    return bool(lab.cgroups.pids(plan.instance_id)) is wanted


async def _unplugged(plan: MachinePlan) -> bool:
    return not os.path.exists(f"/sys/class/net/{veth(plan.instance_id)}")


async def gone(lab: Lab, plan: MachinePlan) -> None:
    """Nothing of a start that failed runs; its cable has gone with it."""
    assert await eventually(lambda: _running(lab, plan, False), DEADLINE)
    assert await eventually(lambda: _unplugged(plan), DEADLINE)


async def test_a_machine_runs_its_command_and_others(lab: Lab) -> None:
    plan = await lab.plan("sh", "-c", "echo out; echo err >&2; read word; echo $word; exit 7")
    started = await lab.start(plan, attach=True)
    assert started.streams
    async with pumped(started) as got:
        await got.until(b"out\n")
        await got.until(b"err\n")
        assert await lab.execute(plan, "sh", "-c", "hostname; exit 4", tool=False) == (4, "vm1\n")
        with pytest.raises(CommandNotFound):
            await lab.execute(plan, "no-such-command", tool=False)
        shell = await lab.machines.execute(
            plan.instance_id, Command(("sh",), ("PATH=/bin",), tty=True)
        )
        typed = Collected()
        pumping = asyncio.ensure_future(shell.streams.pump(typed))
        await shell.streams.resize(33, 77)
        await shell.streams.send(b"stty size; exit 5\n")
        await typed.until(b"33 77")
        await pumping
        assert await shell.wait() == 5
        shell.close()
        sleeping = await lab.machines.execute(plan.instance_id, Command(("/bin/sleep", "60")))
        sleeping.signal(signal.SIGTERM)
        assert await sleeping.wait() == 128 + signal.SIGTERM
        sleeping.close()
        await started.streams.send(b"typed\n")
        await got.until(b"typed\n")
        assert await lab.ended(plan, started) == 7


async def test_a_start_that_fails_leaves_nothing(lab: Lab) -> None:
    plan = await lab.plan("no-such-command")
    with pytest.raises(CommandNotFound):
        await lab.start(plan)
    await gone(lab, plan)
    plan = await lab.plan("true", slot=2)
    task = asyncio.create_task(lab.start(plan))
    assert await eventually(lambda: _running(lab, plan, True), DEADLINE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(lab, plan)


async def test_a_machine_stands_still_and_goes_on(lab: Lab) -> None:
    plan = await lab.plan("sh", "-c", COUNTS)
    started = await lab.start(plan, attach=True)
    async with pumped(started) as got:
        await lab.machines.freeze(plan.instance_id, True)
        await lab.machines.freeze(plan.instance_id, True)
        async with monitor(lab.machines.place(plan.instance_id).run) as qemu:
            assert not await qemu.running()
        await lab.machines.freeze(plan.instance_id, False)
        async with lab.machines.frozen(plan.instance_id):
            pass
        assert await eventually(lambda: count(lab, plan), DEADLINE)
        start = processes.start_time(started.pid)
        await lab.machines.signal(plan.instance_id, started.pid, start, signal.SIGTERM)
        await got.until(b"caught\n")
        assert await lab.ended(plan, started) == 3


async def test_memory_is_kept_and_goes_on_in_the_next_daemon(lab: Lab) -> None:
    plan = await lab.plan("sh", "-c", COUNTS)
    await lab.start(plan)
    before = await eventually(lambda: count(lab, plan), DEADLINE)
    assert before
    target = lab.machines.place(plan.instance_id).store / "memory-image"
    await lab.next_daemon()
    image = await lab.machines.save(plan.instance_id, target)
    assert await lab.ended_by_kill(plan) is None
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    with pytest.raises(MemoryUnusable, match="vcpus"):
        await lab.start(replace(plan, shape=replace(plan.shape, vcpus=2)), memory=image)
    started = await lab.start(plan, attach=True, memory=image)
    async with pumped(started) as got:
        after = await eventually(lambda: count(lab, plan), DEADLINE)
        assert before <= after < before + 200, "it began anew"
        start = processes.start_time(started.pid)
        await lab.machines.signal(plan.instance_id, started.pid, start, signal.SIGTERM)
        await got.until(b"caught\n")
        assert await lab.ended(plan, started) == 3


async def test_a_fork_is_another_machine(lab: Lab) -> None:
    plan = await lab.plan("sh", "-c", COUNTS)
    await lab.start(plan)
    other = await lab.plan("sh", "-c", COUNTS, slot=2)
    target = lab.machines.place(other.instance_id).store / "memory-image"
    image = await lab.machines.save(plan.instance_id, target)
    disks = lab.machines.disks
    disks.path(other.instance_id).write_bytes(disks.path(plan.instance_id).read_bytes())
    await lab.machines.resume(plan.instance_id)
    await lab.start(other, memory=image, identity=other.guest.identity, fork=True)
    told = [await lab.execute(each, "hostname") for each in (plan, other)]
    assert told == [(0, "vm1\n"), (0, "vm2\n")]
    for each in (plan, other):
        _, text = await lab.execute(each, "ip", "addr", "show", "eth0")
        assert each.guest.identity.nics[0].address in text
        assert each.guest.identity.nics[0].mac in text
    address = plan.guest.identity.nics[0].address
    assert (await lab.execute(other, "ping", "-c", "1", "-W", "5", address))[0] == 0
    await files.remove(target)


async def test_an_end_by_force_has_no_code_and_a_panic_has_a_reason(lab: Lab) -> None:
    plan = await lab.plan("sleep", "60")
    started = await lab.start(plan)
    os.kill(started.pid, signal.SIGKILL)
    assert await lab.ended(plan, started) is None
    assert "signal 9" in lab.machines.reason(plan.instance_id)
    plan = await lab.plan("sh", "-c", "echo c >/proc/sysrq-trigger", slot=2)
    started = await lab.start(plan)
    assert await lab.ended(plan, started) == 255
    assert "panicked" in lab.machines.reason(plan.instance_id)
    assert "sysrq" in lab.machines.console(plan.instance_id).lower()


async def test_a_disk_has_one_user(lab: Lab) -> None:
    plan = await lab.plan("sleep", "60")
    await lab.start(plan)
    other = await lab.plan("sleep", "60", slot=2)
    with pytest.raises(StartFailed, match="in use by another VM"):
        await lab.start(replace(other, disk=plan.disk))
