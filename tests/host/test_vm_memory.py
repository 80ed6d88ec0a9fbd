"""Acceleration, decided by a guest that really boots; memory and disks that are damaged, or for
which there is no room."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from imagelab import until
from vmlab import Lab, make_image

from sublet.domain.errors import CorruptDisk, DiskFull, MemoryUnusable
from sublet.domain.units import MIB
from sublet.drivers import linux
from sublet.drivers.descriptors import opened
from sublet.drivers.vm import acceleration, kernels
from sublet.drivers.vm.acceleration import Kind, Probe

PROBES = "sublet-probe-"


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory for temporary files of these tests alone: daemons of others probe, too."""
    with tempfile.TemporaryDirectory(prefix="p") as own:
        monkeypatch.setattr(tempfile, "tempdir", own)
        yield


def probing() -> list[str]:
    """What is left of attempts: directories and processes."""
    found = [path.name for path in Path(tempfile.gettempdir()).glob(f"{PROBES}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{tempfile.gettempdir()}/{PROBES}" in (process / "cmdline").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found


async def test_a_guest_that_boots_is_noticed() -> None:
    assert await acceleration.attempt(kernels.newest(), Kind.TCG, 60) is None
    assert probing() == []


async def test_the_deadline_holds_and_nothing_is_left() -> None:
    said = await acceleration.attempt(kernels.newest(), Kind.TCG, 1)
    assert said is not None
    assert "not ready in time" in said
    assert probing() == []


async def test_a_cancelled_attempt_leaves_nothing() -> None:
    attempt = asyncio.create_task(acceleration.attempt(kernels.newest(), Kind.TCG, 60))
    await until(lambda: len(probing()) >= 2)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert probing() == []


async def test_this_host_is_decided_for_good(tmp_path: Path) -> None:
    answer = await Probe(tmp_path).decide(kernels.newest())
    assert answer.reason.endswith(".")
    if answer.kind is Kind.KVM:
        assert answer.reason == "A guest has booted on it."
    if Path("/dev/kvm").exists():
        assert (tmp_path / "acceleration.json").exists()
    assert await Probe(tmp_path).decide(kernels.newest()) == answer
    assert probing() == []


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, make_image(tmp_path))
    await made.up()
    try:
        yield made
    finally:
        await made.down()


async def test_no_room_for_the_memory(lab: Lab, tmp_path: Path) -> None:
    """The one that was saved before stays good, and the machine lives."""
    small = tmp_path / "small"
    small.mkdir()
    linux.mount("small", str(small), "tmpfs", data=f"size={150 * MIB}")
    try:
        plan = await lab.plan("cat")
        await lab.start(plan)
        image = await lab.machines.save(plan.instance_id, small / "image")
        await lab.machines.resume(plan.instance_id)
        with opened(small / "ballast", os.O_WRONLY | os.O_CREAT) as ballast:
            os.posix_fallocate(ballast, 0, free(small) - 8 * MIB)
        before = image.devices.read_bytes()
        with pytest.raises(DiskFull, match="No space left"):
            await lab.machines.save(plan.instance_id, small / "image")
        await lab.machines.resume(plan.instance_id)
        image.check(plan.shape.text)
        assert image.devices.read_bytes() == before
        assert sorted(os.listdir(small)) == ["ballast", "image"]
        assert await lab.execute(plan, "echo", "lives") == (0, "lives\n")
    finally:
        linux.umount(str(small), linux.MNT_DETACH)


def free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


async def test_damaged_memory_and_disks_are_refused(lab: Lab) -> None:
    plan = await lab.plan("cat")
    await lab.start(plan)
    image = await lab.machines.save(plan.instance_id, plan.disk.file.with_name("memory-image"))
    await lab.machines.teardown(plan.instance_id)
    await lab.network.detach(plan.instance_id)
    size = image.memory.stat().st_size
    os.truncate(image.memory, size - 1)
    with pytest.raises(MemoryUnusable, match="not whole"):
        await lab.start(plan, memory=image)
    await lab.network.detach(plan.instance_id)
    os.truncate(image.memory, size)
    devices = image.devices.read_bytes()
    image.devices.write_bytes(devices[:64] + bytes(len(devices) - 64))
    with pytest.raises(MemoryUnusable, match="devices has changed"):
        await lab.start(plan, memory=image)
    await lab.network.detach(plan.instance_id)
    image.devices.write_bytes(devices)
    os.truncate(plan.disk.file, 32 * MIB)
    for memory in (image, None):
        with pytest.raises(CorruptDisk, match="truncated"):
            await lab.start(plan, memory=memory)
        await lab.network.detach(plan.instance_id)
