"""A real guest with an init that is restarted from inside: it comes back as the same instance."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import guestlab
import pytest
from vmlab import Lab

from sublet.domain.errors import SubletError
from sublet.drivers.vm.messages import Command, Mode
from sublet.drivers.vm.plan import MachinePlan


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, guestlab.make_image(tmp_path))
    await made.up()
    yield made
    await made.down()


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


async def test_a_restart_inside(lab: Lab) -> None:
    plan = await lab.plan("/sbin/init")
    plan = replace(plan, guest=replace(plan.guest, mode=Mode.INIT))
    started = await lab.start(plan)
    command = Command(("sh", "-c", "while :; do echo busy; done"), ("PATH=/bin",))
    busy = await lab.machines.execute(plan.instance_id, command)
    seen = set()
    for boot in range(2):
        code, identity = await lab.execute(
            plan, "sh", "-c", "echo boot >> /boots; cat /proc/sys/kernel/random/boot_id"
        )
        assert code == 0
        seen.add(identity)
        with contextlib.suppress(SubletError):  # it ends before it can answer
            await lab.execute(plan, "reboot", "-f")
        assert await back(lab, plan) == "vm1\n" + "boot\n" * (boot + 1) + "0\n"
    busy.close()
    assert len(seen) == 2, "it was not booted again"
    await lab.machines.signal(plan.instance_id, started.pid, 0, signal.SIGTERM)
    assert await lab.ended(plan, started) == 0
    log = (lab.config.root / "instances" / plan.instance_id / "log").read_text()
    assert log.count("The machine was restarted inside.") == 2
    assert "reboot: Power down" in log
