"""Two machines that began as one memory have no random number in common.

By itself a kernel takes new entropy only so often: after half of its uptime, and at last every
minute (drivers/char/random.c, crng_reseed_interval). A guest that has just booted would hide that
nobody reseeds it. Here it has run for so long that its kernel would not for many seconds, and it is
shown: two that are not reseeded give the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import slowly
from vmlab import Collected, Lab, make_image

from sublet.drivers import files, reflink
from sublet.drivers.vm import supervisor
from sublet.drivers.vm.memory import MemoryImage
from sublet.drivers.vm.plan import MachinePlan
from sublet.drivers.vm.saving import copy

GENERATORS = """
read naive </proc/sys/kernel/random/uuid; keyed=$naive; read seen </run/sublet/generation
hash() { set -- $(echo "$*" | busybox sha256sum); echo $1; }
while read order; do
  read kernel </proc/sys/kernel/random/uuid
  read now </run/sublet/generation
  if [ $now != $seen ]; then seen=$now; read more </proc/sys/kernel/random/uuid
    keyed=$(hash $keyed $more); fi
  naive=$(hash $naive); keyed=$(hash $keyed)
  read uptime rest </proc/uptime
  echo $uptime $kernel $naive $keyed
done
"""
"""With each line it gives the next number of three generators: the kernel's, one in user space that
was seeded once, and one that takes a new key when /run/sublet/generation has changed."""


@dataclass(frozen=True)
class Numbers:
    """The next ones of the three generators, and the guest's uptime in seconds."""

    uptime: float
    kernel: str
    naive: str
    keyed: str


class Guest:
    """A machine in which the generators run."""

    def __init__(self, lab: Lab, plan: MachinePlan) -> None:
        self.lab, self.plan = lab, plan

    async def next(self) -> Numbers:
        streams, got = self.lab.machines.attach(self.plan.instance_id), Collected()
        pumping = asyncio.create_task(streams.pump(got))
        try:
            await streams.send(b"\n")
            await got.until(b"\n")
        finally:
            pumping.cancel()
            streams.close()
        uptime, *numbers = got.out.decode().split()
        return Numbers(float(uptime), *numbers)

    async def age(self, seconds: float) -> Numbers:
        """Wait for that uptime, using the kernel's generator, so that it was fed lately."""
        numbers = await self.next()
        while numbers.uptime < seconds:
            await asyncio.sleep(0.2)  # it is the guest's clock that is waited for
            numbers = await self.next()
        return numbers


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, make_image(tmp_path))
    await made.up()
    try:
        yield made
    finally:
        await made.down()


async def saved(lab: Lab, uptime: float) -> tuple[Guest, MemoryImage]:
    """A guest that has run for so long, and its memory."""
    plan = await lab.plan("sh", "-c", GENERATORS)
    await lab.start(plan)
    guest = Guest(lab, plan)
    await guest.age(uptime)
    image = await lab.machines.save(plan.instance_id, lab.containers.pool.directory / "saved")
    return guest, image


async def fork(lab: Lab, origin: Guest, image: MemoryImage, slot: int) -> Guest:
    """Another machine that goes on in that memory, with a copy of the disk."""
    made = await lab.plan(slot=slot)
    await files.remove(made.disk.file)
    reflink.copy_file(origin.plan.disk.file, made.disk.file)
    own = await copy(image, made.disk.file.with_name("memory-image"))
    identity = made.guest.identity
    plan = replace(made, guest=replace(origin.plan.guest, identity=identity))
    await lab.start(plan, memory=own, identity=identity, fork=True)
    return Guest(lab, plan)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("uptime", [12.5, *slowly(125.0)])
async def test_forks_share_no_random_numbers(
    lab: Lab, uptime: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, image = await saved(lab, uptime)
    try:
        one, two = [await (await fork(lab, origin, image, slot)).next() for slot in (2, 3)]
        assert one.kernel != two.kernel
        assert one.keyed != two.keyed
        assert one.naive == two.naive, "which is why there is /run/sublet/generation"

        monkeypatch.setattr(supervisor, "entropy", lambda: b"")
        for slot in (4, 6, 8):
            pair = [await (await fork(lab, origin, image, slot + n)).next() for n in (0, 1)]
            if max(each.uptime for each in pair) < uptime * 1.6:
                break  # else its kernel may have reseeded itself: a busy host
        one, two = pair
        assert (one.kernel, one.keyed) == (two.kernel, two.keyed), f"something else reseeds: {pair}"
    finally:
        await files.remove(image.directory)
