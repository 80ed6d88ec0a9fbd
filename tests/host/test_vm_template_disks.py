"""A template's disk: a clone's memory and its disk always belong together."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from vmlab import Collected, Lab, collected, make_image

from sublet.drivers import files
from sublet.drivers.vm import disks
from sublet.drivers.vm.messages import Command
from sublet.drivers.vm.plan import MachinePlan

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """One for all, so that the template which the first makes serves the others."""
    place = tmp_path_factory.mktemp("lab")
    made = Lab(place, make_image(place), template_limit=1 << 30)
    await made.up()
    try:
        yield made
    finally:
        await made.down()


async def run(lab: Lab, plan: MachinePlan, script: str) -> str:
    """What the script says in the machine, which starts for it and ends."""
    command = Command(("sh", "-c", script), ("PATH=/bin",))
    plan = replace(plan, guest=replace(plan.guest, command=command))
    started = await lab.start(plan, attach=True)
    assert started.streams
    with contextlib.closing(started.streams):
        said = (await collected(started.streams)).decode()
    assert await lab.ended(plan, started) == 0, said
    assert lab.machines.console(plan.instance_id).find("EXT4-fs error") < 0
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    sound(plan.disk.file)
    return said


def sound(disk: Path) -> None:
    """The file system has no fault; of a copy, in user space, after its journal is replayed."""
    copy = disk.with_name("copy")
    shutil.copyfile(disk, copy)
    subprocess.run(["e2fsck", "-p", copy], capture_output=True, timeout=60, check=False)
    found = subprocess.run(
        ["e2fsck", "-fn", copy], capture_output=True, text=True, timeout=60, check=False
    )
    copy.unlink()
    assert found.returncode == 0, found.stdout


async def template(lab: Lab) -> Path:
    """The only one, when it is on the disk."""
    directory = lab.machines.templates.directory
    async with asyncio.timeout(120):
        names = files.entries(directory)
        while not names or names[0].endswith(".partial"):
            await asyncio.sleep(0.05)  # it is the disk that is waited for
            names = files.entries(directory)
    return directory / names[0]


def inode(plan: MachinePlan) -> int:
    return plan.disk.file.stat().st_ino


async def test_each_clone_has_its_own_files(lab: Lab) -> None:
    plans = [await lab.plan(slot=slot) for slot in (1, 2, 3)]
    await lab.machines.templates.remove_image(plans[0].shape.image)
    for number, plan in enumerate(plans):
        before = inode(plan)
        assert await run(lab, plan, f"ls /data; echo {number} >/data/mine; echo done") == "done\n"
        assert (inode(plan) != before) == (number > 0), "clones have the template's disk"
        assert (await template(lab) / "disk").exists()
    for number, plan in enumerate(plans):
        before = inode(plan)
        assert await run(lab, plan, "cat /data/mine; echo again >>/data/mine") == f"{number}\n"
        assert inode(plan) == before, "what a guest has written is never replaced"
    for number, plan in enumerate(plans):
        assert await run(lab, plan, "cat /data/mine") == f"{number}\nagain\n"


async def templated(lab: Lab) -> None:
    """See that there is a template, which knows a disk."""
    directory = lab.machines.templates.directory
    if not any((directory / name / "disk").exists() for name in files.entries(directory)):
        await run(lab, await lab.plan(slot=1), "echo first >/data/file")
        await template(lab)


async def test_a_killed_clone_keeps_what_was_synced(lab: Lab) -> None:
    await templated(lab)
    script = "echo kept >/data/kept; sync; echo synced; exec sleep 99"
    plan = await lab.plan("sh", "-c", script, slot=2)
    started = await lab.start(plan, attach=True)
    assert started.streams
    said = Collected()
    with contextlib.closing(started.streams):
        pump = asyncio.ensure_future(started.streams.pump(said))
        await said.until(b"synced")
        pump.cancel()
    await lab.ended_by_kill(plan)
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    sound(plan.disk.file)
    assert await run(lab, plan, "cat /data/kept; echo more >/data/more") == "kept\n"
    assert await run(lab, plan, "cat /data/kept /data/more") == "kept\nmore\n"


async def test_another_disk_is_taken_for_what_it_is(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the host gives a clone a disk that its memory does not know."""
    await templated(lab)
    monkeypatch.setattr("sublet.drivers.vm.starting.adopt", lambda *_: None)
    plan = await lab.plan(slot=2)
    assert disks.untouched(plan.disk.file)
    assert await run(lab, plan, "ls /data; echo second >/data/file; echo done") == "done\n"
    assert not disks.untouched(plan.disk.file)
    assert await run(lab, plan, "cat /data/file; echo third >/data/file") == "second\n"
    assert await run(lab, plan, "cat /data/file") == "third\n"


async def test_a_template_of_an_instance_that_has_files_knows_none_of_them(lab: Lab) -> None:
    """As when the template has gone, and a machine that is not new is the first to start."""
    first = await lab.plan(slot=1)
    await run(lab, first, "echo secret >/data/secret")
    await lab.machines.templates.remove_image(first.shape.image)
    assert await run(lab, first, "cat /data/secret") == "secret\n"
    assert not (await template(lab) / "disk").exists()
    second = await lab.plan(slot=2)
    assert await run(lab, second, "ls /data; echo done") == "done\n"
