"""Templates with real machines: who boots, who resumes, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import slowly
from vmlab import Lab, collected, make_image

from sublet.domain.errors import DiskFull
from sublet.drivers import files
from sublet.drivers.vm.memory import digest
from sublet.drivers.vm.plan import MachinePlan
from sublet.drivers.vm.saving import Saving
from sublet.drivers.vm.shape import Platform

SHOW = "read id </proc/sys/kernel/random/uuid; hostname; echo $id; date +%s"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, make_image(tmp_path), template_limit=1 << 30)
    await made.up()
    try:
        yield made
    finally:
        await made.down()


async def words(lab: Lab, slot: int) -> tuple[MachinePlan, list[str]]:
    """Start a machine; what it says of itself, and its plan. It ends then."""
    plan = await lab.plan("sh", "-c", SHOW, slot=slot)
    started = await lab.start(plan, attach=True)
    assert started.streams
    with contextlib.closing(started.streams):
        return plan, (await collected(started.streams)).decode().split()


async def kept(lab: Lab) -> Path:
    """The template, when it is on the disk."""
    directory = lab.machines.templates.directory
    async with asyncio.timeout(120):
        names = files.entries(directory)
        while not names or lab.machines.templates.making():
            await asyncio.sleep(0.05)  # it is the disk that is waited for
            names = files.entries(directory)
    assert len(names) == 1
    return directory / names[0]


def resumed(lab: Lab, plan: MachinePlan) -> bool:
    """Whether the machine went on in a template's memory."""
    return lab.machines.place(plan.instance_id).base.exists()


async def test_the_second_start_resumes_until_the_kernel_is_another(lab: Lab) -> None:
    first, (name, number, _) = await words(lab, 1)
    template = await kept(lab)
    began = time.time()
    second, (other_name, other_number, now) = await words(lab, 2)
    assert (resumed(lab, first), resumed(lab, second)) == (False, True)
    assert (name, other_name) == ("vm1", "vm2")
    assert number != other_number
    assert began - 2 < int(now) < time.time() + 2, "its clock is the template's"
    platform = await lab.machines.platform()
    await lab.machines.templates.collect(platform)
    assert template.exists()
    await lab.machines.templates.collect(Platform(platform.qemu, platform.acceleration, "6.99"))
    assert not template.exists(), "another kernel makes it stale"


async def test_starts_at_once_boot_one(lab: Lab) -> None:
    made = await asyncio.gather(*(words(lab, slot) for slot in (1, 2, 3)))
    assert sorted(resumed(lab, plan) for plan, _ in made) == [False, True, True]
    assert len({number for _, (_, number, _) in made}) == 3


async def test_a_clone_outlives_its_template_and_is_saved_all_the_same(lab: Lab) -> None:
    await words(lab, 1)
    await kept(lab)
    plan = await lab.plan("cat", slot=2)
    await lab.start(plan)
    await lab.machines.templates.remove_image(plan.shape.image)
    assert files.entries(lab.machines.templates.directory) == []
    assert await lab.execute(plan, "echo", "lives") == (0, "lives\n")
    image = await lab.machines.save(plan.instance_id, lab.containers.pool.directory / "saved")
    image.check(plan.shape.text)
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    await lab.start(plan, memory=image)
    assert await lab.execute(plan, "echo", "goes on") == (0, "goes on\n")
    await files.remove(image.directory)


async def test_a_template_that_no_machine_takes_is_dropped(lab: Lab) -> None:
    await words(lab, 1)
    devices = await kept(lab) / "devices"
    lab.machines.templates.close()
    good = devices.read_bytes()
    devices.write_bytes(good[:4096] + bytes(len(good) - 4096))
    described = json.loads((devices.parent / "shape").read_text())
    described["digest"] = digest(devices)  # as if QEMU had written what it does not take
    (devices.parent / "shape").write_text(json.dumps(described))
    plan, (name, *_) = await words(lab, 2)
    assert name == "vm2"
    assert not resumed(lab, plan)


@pytest.mark.parametrize("where", ["commit", *slowly("pages")])
async def test_no_room_for_a_template(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def full(*_: object) -> None:
        raise DiskFull("No space left on the host.")

    monkeypatch.setattr(Saving, where, full)
    plan, (name, *_) = await words(lab, 1)
    assert (name, resumed(lab, plan)) == ("vm1", False)
    monkeypatch.undo()
    plan, (name, *_) = await words(lab, 2)  # nor is it tried again at once
    assert (name, resumed(lab, plan)) == ("vm2", False)
