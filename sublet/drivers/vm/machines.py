"""Virtual machines on this host: what is made for one, and how all of it is taken away again.

Everything is found from the instance's id: `RUN/instances/<id>` holds what its supervisor needs,
and `shape`, which its memory would have to fit; `ROOT/instances/<id>` its log;
`<pool>/instances/<id>` its disk, and `base`, a link to the file that its memory was mapped from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sublet.domain.config import Config
from sublet.domain.errors import StartFailed, ToolMissing, WrongState
from sublet.domain.leftover import Leftover
from sublet.domain.machine import Room
from sublet.domain.size import Size
from sublet.drivers import files, processes, trace
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask
from sublet.drivers.container.streams import Attachment
from sublet.drivers.container.supervisor import Started
from sublet.drivers.pool import Pool
from sublet.drivers.vm import channel, growing, mapping, shelf
from sublet.drivers.vm.acceleration import Acceleration, Probe, this_host
from sublet.drivers.vm.disks import Disks
from sublet.drivers.vm.kept import KeptKernels
from sublet.drivers.vm.kernels import Kernel, newest
from sublet.drivers.vm.memory import MemoryImage
from sublet.drivers.vm.messages import Command, Identity
from sublet.drivers.vm.plan import MachinePlan
from sublet.drivers.vm.qemu import OVERHEAD
from sublet.drivers.vm.qmp import monitor
from sublet.drivers.vm.saving import Saving
from sublet.drivers.vm.shape import Platform
from sublet.drivers.vm.starting import Place, Starting
from sublet.drivers.vm.streams import GuestExecution, say
from sublet.drivers.vm.templates import Background, Templates

CONSOLE = 64 * 1024
"""Bytes of a console that are shown."""

GUARD_INTERVAL = 60.0

_PIDS = 1024
"""Threads of a QEMU: one for each virtual CPU, up to 64 for each disk."""


class Machines:
    """All virtual machines of one daemon; `background` runs its tasks."""

    def __init__(
        self, config: Config, cgroups: Cgroups, pool: Pool, background: Background
    ) -> None:
        self.config, self.cgroups, self.pool = config, cgroups, pool
        self.disks = Disks(pool)
        self.templates = Templates(pool, config.template_limit, background)
        self.kernels = KeptKernels(config, pool)
        self._background, self._collected = background, False
        self.probe = Probe(config.root, config.acceleration)

    # What all have in common

    async def acceleration(self, kernel: Kernel | None = None) -> Acceleration:
        """What guests run on; the first time a guest is booted to find out. Raises ToolMissing."""
        return await self.probe.decide(kernel or newest())

    async def platform(self, kernel: Kernel | None = None) -> Platform:
        """What the memory of every machine that boots that kernel depends on."""
        kernel = kernel or newest()
        host, found = await this_host(), await self.acceleration(kernel)
        kind = host.name if found.kind == "kvm" else str(found.kind)
        platform = Platform(host.qemu, kind, kernel.identity)
        if not self._collected:  # this is the first that needs to know, for QEMU may be missing
            self._collected = True
            self._background("stale templates", self._collect(platform))
        return platform

    async def _collect(self, platform: Platform) -> None:
        """Remove templates and kernels that no machine will need."""
        with contextlib.suppress(ToolMissing):
            platform = replace(platform, kernel=newest().identity)
        await self.templates.collect(platform)
        await self.kernels.collect()

    async def guard(self) -> None:
        """Give back for ever what is idle."""
        while True:
            await asyncio.sleep(GUARD_INTERVAL)
            self.templates.unload()
            await self.kernels.collect()

    def place(self, instance_id: str) -> Place:
        """Where the things of one instance are."""
        return Place(
            self.config.root / "instances" / instance_id,
            self.config.run / "instances" / instance_id,
            self.pool.directory / "instances" / instance_id,
        )

    # Up

    async def start(
        self,
        plan: MachinePlan,
        *,
        attach: bool,
        memory: MemoryImage | None = None,
        identity: Identity | None = None,
        fork: bool = False,
    ) -> Started:
        """Boot the machine, or resume a template of it, and run the guest's command. With
        `memory`, which only this instance has, it goes on where that was saved instead: `identity`
        is where it is now, and in a `fork` it is another instance. With `attach`, its streams from
        the first byte on.

        What it raises says why, and then, as when it is cancelled, the machine has ended;
        `teardown` takes away the rest. Raises CommandNotFound, CommandNotExecutable, StartFailed,
        MemoryUnusable, CorruptDisk, InvalidArgument.
        """
        place = self.place(plan.instance_id)
        place.make()
        self.cgroups.create(plan.instance_id, self._limited(plan.size), _PIDS)
        starting = Starting(plan, place, self.cgroups, self.templates)
        try:
            if memory:
                return await starting.resume(memory, identity, attach=attach, fork=fork)
            return await starting.begin(attach=attach)
        except OSError as error:
            raise StartFailed(f"The machine cannot be started: {error}.") from error

    def limit(self, instance_id: str, size: Size, _pids: int) -> None:
        """Set the limits of its QEMU. How many processes the guest has is its own business."""
        self.cgroups.limit(instance_id, self._limited(size), _PIDS)

    @staticmethod
    def _limited(size: Size) -> Size:
        return Size(size.cpus, size.memory + OVERHEAD, size.disk)

    # While it runs

    async def room(self, instance_id: str) -> Room:
        """What it has, and could be given. Raises WrongState, ProcessFailed."""
        return await growing.room(self.place(instance_id).run)

    async def grow(self, instance_id: str, vcpus: int, memory: int) -> bool:
        """Plug in what it lacks of CPUs and bytes of memory; whether its guest has taken all of
        it. What of its limits has to be higher is so already. See `growing.grow`."""
        return await growing.grow(self.place(instance_id).run, vcpus, memory)

    def attach(self, instance_id: str) -> Attachment:
        """The streams of the main process, from now on. Raises OSError where it has ended."""
        return Attachment.open(self.place(instance_id).run)

    async def execute(self, instance_id: str, command: Command) -> GuestExecution:
        """Start a further process in the guest.

        Raises CommandNotFound, CommandNotExecutable, StartFailed, WrongState.
        """
        return await channel.execute(self.place(instance_id).run, command)

    async def signal(self, instance_id: str, pid: int, pid_start: int, number: int) -> None:
        """Send a signal to the guest's main process; SIGKILL ends the machine, QEMU `pid`.

        An init system takes any of the others as the order to power off.
        """
        if number == signal.SIGKILL:
            processes.send(pid, pid_start, number)
            return
        with contextlib.closing(channel.connect(self.place(instance_id).run)) as connection:
            await say(connection, [protocol.numbers(Ask.SIGNAL, number)])

    async def freeze(self, instance_id: str, frozen: bool) -> None:
        """Let all virtual CPUs stand still, or go on, with the time as it is then. Idempotent."""
        place = self.place(instance_id)
        async with monitor(place.run) as qemu:
            await (qemu.stop() if frozen else qemu.resume())
        if not frozen:
            await channel.go(place.run)

    async def resume(self, instance_id: str) -> None:
        """Let a machine go on that stood still for `save`. One that has ended is no error."""
        with contextlib.suppress(WrongState):
            await self.freeze(instance_id, False)

    @asynccontextmanager
    async def frozen(self, instance_id: str) -> AsyncIterator[None]:
        """The guest's file systems are written out and stand still until the block ends."""
        async with channel.quiet(self.place(instance_id).run, freeze=True):
            yield

    async def save(self, instance_id: str, target: Path) -> MemoryImage:
        """Save the machine's memory; it stands still then, until `resume` or its end.

        What was at `target` stays until the new one is whole. A machine that is paused goes on for
        a moment, because its guest has to fall silent first. Raises DiskFull, WrongState.
        """
        place, pid = self.place(instance_id), mapping.qemu(self.cgroups, instance_id)
        shape = place.shape()
        base = place.base if place.base.exists() else None
        saving = await Saving.begin(target, shape.text, shape.memory, base)
        try:
            async with monitor(place.run) as qemu:
                await growing.check_as_booted(qemu, shape.vcpus)
                await qemu.resume()
                async with channel.quiet(place.run):
                    with trace.step("stand still"):
                        await qemu.stop()
                    await channel.dump(qemu, saving, pid, shape.memory)
            return await saving.commit()
        except BaseException:
            await saving.discard()
            raise

    # Down

    def console(self, instance_id: str) -> str:
        """The last that the console has printed."""
        return _tail(self.place(instance_id).run / "console", CONSOLE)

    def exit_code(self, instance_id: str) -> int | None:
        """The exit code that the supervisor left, None if it left none (QEMU was killed)."""
        return protocol.exit_code(self.place(instance_id).run)

    def exit_time(self, instance_id: str) -> float | None:
        """When it ended, in seconds since the epoch, None where nothing tells."""
        return protocol.exit_time(self.place(instance_id).run)

    def reason(self, instance_id: str) -> str:
        """Why the machine ended, where it did not end well: a sentence."""
        return _tail(self.place(instance_id).run / "reason", CONSOLE).partition("\n")[0]

    async def teardown(self, instance_id: str) -> None:
        """Take away all that a stopped instance does not need. Its disk and log stay.
        Idempotent."""
        place = self.place(instance_id)
        with trace.step("cgroups"):
            await self.cgroups.destroy(instance_id)
        place.base.unlink(missing_ok=True)
        shutil.rmtree(place.run, ignore_errors=True)

    async def delete(self, instance_id: str) -> None:
        """Remove what is left of a torn-down instance: disk, memory and log. Idempotent."""
        place = self.place(instance_id)
        await files.remove(place.store)
        await files.remove(place.state)

    def leftovers(self, busy: set[str]) -> list[Leftover]:
        """Memory images, templates and disks that were never finished, and memory of instances
        that do not hibernate; `busy`: those that do, that run, or that something is done to. The
        rest is where containers have theirs."""
        kernels = [Leftover("half-made kernel", str(file)) for file in self.kernels.half_made()]
        return kernels + shelf.leftovers(self.pool, self.templates.making(), busy)

    async def clean(self, busy: set[str]) -> None:
        """Remove what `leftovers` finds."""
        for leftover in self.leftovers(busy):
            await files.remove(Path(leftover.name))

    def close(self) -> None:
        """Give back the memory of templates."""
        self.templates.close()


def _tail(file: Path, most: int) -> str:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - most))
        return opened.read(most).decode(errors="replace")
    return ""
