"""Virtual machines by their driver alone: no engine, no database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex

from imagelab import until

from sublet.domain import subnets
from sublet.domain.config import Config
from sublet.domain.nics import Nic
from sublet.domain.size import Size
from sublet.domain.units import MIB
from sublet.drivers import processes
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.container.containers import Containers
from sublet.drivers.container.streams import Streams
from sublet.drivers.container.supervisor import Started
from sublet.drivers.network import Network
from sublet.drivers.vm import kernels
from sublet.drivers.vm.machines import Machines
from sublet.drivers.vm.memory import MemoryImage
from sublet.drivers.vm.messages import Command, Guest, Identity
from sublet.drivers.vm.plan import Disk, MachinePlan
from sublet.drivers.vm.shape import Shape
from sublet.engine.tasks import Tasks

SIZE = Size(1, 192 * MIB, 64 * MIB)
PREFIX = 20
PROGRAMS = "sh echo cat ls sleep sync true hostname stty ip ping date"


@dataclass
class Collected:
    """What a process wrote."""

    out: bytearray = field(default_factory=bytearray)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _stream: int, data: bytes) -> None:
        self.out += data
        self.grown.set()

    async def until(self, text: bytes, deadline: float = 60) -> None:
        """Wait until it has written that."""
        async with asyncio.timeout(deadline):
            while text not in self.out:
                self.grown.clear()
                await self.grown.wait()


class Lab:
    """Everything one daemon would have; `image` is a squashfs."""

    def __init__(self, directory: Path, image: Path, template_limit: int = 0) -> None:
        run = directory / "run"
        self.config = Config(root=directory / "root", run=run, template_limit=template_limit)
        self.image, self.tasks = image, Tasks()
        self.config.root.mkdir()
        self.containers = Containers(self.config, Cgroups(self.config.identity))
        self.cgroups = self.containers.cgroups
        self.network = Network(self.config)
        self.ids: list[str] = []

    async def up(self) -> None:
        await self.containers.setup()
        self.machines = self.daemon()
        try:
            await self.network.up()
        except BaseException:
            self.containers.close()
            raise

    def daemon(self) -> Machines:
        """A daemon's machines, as the next one would have them."""
        pool = self.containers.pool
        return Machines(self.config, self.cgroups, pool, self.tasks.start)

    async def next_daemon(self) -> None:
        """The daemon has ended, and there is another one."""
        await self.tasks.close()
        self.machines.close()
        self.machines = self.daemon()

    async def plan(self, *args: str, slot: int = 1, **changes: object) -> MachinePlan:
        """A machine that runs the command."""
        instance_id, address = token_hex(6), self.network.address(slot)
        self.ids.append(instance_id)
        kernel, size = kernels.newest(), SIZE
        disk = await self.machines.disks.create(instance_id, size.disk)
        nic = Nic(subnets.mac(IPv4Address(address)), address, PREFIX, self.network.gateway)
        identity = Identity(f"vm{slot}", token_hex(16), (nic,), {})
        platform = await self.machines.platform(kernel)
        length = self.image.stat().st_size
        plan = MachinePlan(
            instance_id=instance_id,
            uid=self.network.uid_base(slot),
            size=size,
            acceleration=platform.acceleration.partition(" ")[0],
            kernel=kernel,
            image=Disk(self.image, "image", True, "raw", 0, length),
            disk=Disk(disk, "disk"),
            guest=Guest(Command(args, ("PATH=/bin",)), identity, stdin=True),
            shape=Shape(platform, "sha256:test", size.memory, 1, size.disk),
        )
        return replace(plan, **changes)  # type: ignore[arg-type]

    async def start(
        self,
        plan: MachinePlan,
        *,
        attach: bool = False,
        memory: MemoryImage | None = None,
        identity: Identity | None = None,
        fork: bool = False,
    ) -> Started:
        """Start it, with a cable."""
        address = plan.guest.identity.nics[0].address
        tap = await self.network.attach_tap(plan.instance_id, address)
        try:
            return await self.machines.start(
                replace(plan, taps=(tap,)),
                attach=attach,
                memory=memory,
                identity=identity,
                fork=fork,
            )
        finally:
            os.close(tap)

    async def ended(self, plan: MachinePlan, started: Started) -> int | None:
        """The exit code, when it has ended."""
        async with asyncio.timeout(60):
            await processes.ended(started.supervisor, processes.start_time(started.supervisor))
        return self.machines.exit_code(plan.instance_id)

    async def ended_by_kill(self, plan: MachinePlan) -> int | None:
        """End the machine at once; the exit code, if it left one."""
        supervisor = self.supervisor(plan)
        for pid in self.cgroups.pids(plan.instance_id):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await processes.ended(supervisor, processes.start_time(supervisor))
        return self.machines.exit_code(plan.instance_id)

    def supervisor(self, plan: MachinePlan) -> int:
        """The pid of its supervisor: QEMU's parent."""
        (qemu,) = self.cgroups.pids(plan.instance_id)
        stat = Path(f"/proc/{qemu}/stat").read_text()
        return int(stat[stat.rindex(")") + 2 :].split()[1])

    async def execute(self, plan: MachinePlan, *args: str, tool: bool = True) -> tuple[int, str]:
        """A further process: its exit code and output."""
        execution = await self.machines.execute(
            plan.instance_id, Command(args, ("PATH=/bin",), tool=tool)
        )
        collected = Collected()
        try:
            await execution.streams.close_input()
            async with asyncio.timeout(60):
                await execution.streams.pump(collected)
                return await execution.wait(), collected.out.decode()
        finally:
            execution.close()

    async def down(self) -> None:
        """Take all away, and see that nothing is left."""
        for instance_id in self.ids:
            await self.machines.teardown(instance_id)
            await self.network.detach(instance_id)
            await self.machines.delete(instance_id)
        await self.tasks.close()
        assert self.machines.leftovers(set()) == []
        with contextlib.suppress(TimeoutError):
            await until(lambda: not self.containers.leftovers(set(), set()))
        assert self.containers.leftovers(set(), set()) == []
        assert await self.network.leftovers(set()) == []
        self.machines.close()
        assert memory_of_templates() == [], "the memory of a template that nobody has any more"
        await self.network.down()
        self.containers.close()


def memory_of_templates() -> list[str]:
    """The sealed memory that this process has of templates."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if "sublet-template" in name]


async def collected(streams: Streams) -> bytes:
    """All that it writes."""
    got = Collected()
    async with asyncio.timeout(60):
        await streams.pump(got)
    return bytes(got.out)


def make_image(directory: Path) -> Path:
    """A squashfs with busybox."""
    tree, file = directory / "tree", directory / "image.squashfs"
    (tree / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed"
    shutil.copy(busybox, tree / "bin/busybox")
    for name in PROGRAMS.split():
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("etc", "proc", "sys", "dev", "tmp", "run", "data"):
        (tree / name).mkdir()
    (tree / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    argv = ["mksquashfs", tree, file, "-comp", "zstd", "-all-root", "-quiet", "-no-progress"]
    subprocess.run(argv, check=True, capture_output=True)
    return file
