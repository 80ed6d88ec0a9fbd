"""A real guest with an init that is restarted from inside: it comes back as the same instance."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import guestlab
import pytest
from vmlab import Lab

from sublet.domain.errors import SubletError
from sublet.drivers import files, reflink
from sublet.drivers.container.supervisor import Started
from sublet.drivers.vm.memory import MemoryImage
from sublet.drivers.vm.messages import Command, Mode
from sublet.drivers.vm.plan import MachinePlan


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, guestlab.make_image(tmp_path), template_limit=1 << 30)
    await made.up()
    yield made
    await made.down()


async def system(lab: Lab, slot: int = 1, *, cold: bool = True) -> MachinePlan:
    plan = await lab.plan("/sbin/init", slot=slot)
    return replace(plan, guest=replace(plan.guest, mode=Mode.INIT), cold=cold)


async def back(lab: Lab, plan: MachinePlan, deadline: float = 60) -> str:
    """When the guest takes a command again, its host name and how often its kernel was booted by
    what it left on its disk."""
    async with asyncio.timeout(deadline):
        while True:
            with contextlib.suppress(SubletError, TimeoutError):
                code, out = await lab.execute(plan, "sh", "-c", "hostname; cat /boots; id -u")
                if code == 0:
                    return out
            await asyncio.sleep(0.2)


async def restart(lab: Lab, plan: MachinePlan, boots: int = 1) -> str:
    """Restart it inside for that time; the boot that this ended."""
    code, identity = await lab.execute(
        plan, "sh", "-c", "echo boot >> /boots; cat /proc/sys/kernel/random/boot_id"
    )
    assert code == 0
    with contextlib.suppress(SubletError):  # it ends before it can answer
        await lab.execute(plan, "reboot", "-f")
    assert await back(lab, plan) == f"{plan.guest.identity.hostname}\n" + "boot\n" * boots + "0\n"
    return identity


async def ends_well(lab: Lab, plan: MachinePlan, started: Started, boots: int) -> None:
    """It takes its stop signal, has restarted so often, and its exit code is that of its init."""
    await lab.machines.signal(plan.instance_id, started.pid, 0, signal.SIGTERM)
    assert await lab.ended(plan, started) == 0
    log = (lab.config.root / "instances" / plan.instance_id / "log").read_text()
    assert log.count("The machine was restarted inside.") == boots
    assert "reboot: Power down" in log


async def test_a_restart_inside(lab: Lab) -> None:
    plan = await system(lab)
    started = await lab.start(plan)
    command = Command(("sh", "-c", "while :; do echo busy; done"), ("PATH=/bin",))
    busy = await lab.machines.execute(plan.instance_id, command)
    seen = {await restart(lab, plan, boots) for boots in (1, 2)}
    busy.close()
    assert len(seen) == 2, "it was not booted again"
    await ends_well(lab, plan, started, 2)


async def test_a_restart_inside_a_clone(lab: Lab) -> None:
    """Its memory was a template's, and in it was no firmware to boot from."""
    first = await system(lab, cold=False)
    await lab.start(first)
    await lab.ended_by_kill(first)
    plan = await system(lab, 2, cold=False)
    started = await lab.start(plan)
    assert lab.machines.place(plan.instance_id).base.exists(), "it is no clone"
    await restart(lab, plan)
    await ends_well(lab, plan, started, 1)


@pytest.mark.slow
async def test_a_restart_inside_a_woken_one_and_its_fork(lab: Lab) -> None:
    plan, other = await system(lab), await system(lab, 2)
    await lab.start(plan)
    await restart(lab, plan)
    store = plan.disk.file.parent
    image = await lab.machines.save(plan.instance_id, store / "memory-image")
    await lab.ended_by_kill(plan)
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    await files.remove(other.disk.file)
    reflink.copy_file(plan.disk.file, other.disk.file)
    own = other.disk.file.with_name("memory-image")
    shutil.copytree(image.directory, own)
    identity = other.guest.identity
    fork = await lab.start(other, memory=MemoryImage(own), identity=identity, fork=True)
    await restart(lab, other, 2)
    await ends_well(lab, other, fork, 1)
    woken = await lab.start(plan, memory=image)
    await restart(lab, plan, 2)
    await ends_well(lab, plan, woken, 2)
