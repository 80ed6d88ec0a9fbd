"""One machine's start: from a template where there is one, from its own saved memory, or from
the kernel's first instruction."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import MemoryUnusable, SubletError
from sublet.drivers import trace
from sublet.drivers.cgroup import SUPERVISORS, Cgroups
from sublet.drivers.container.streams import Attachment
from sublet.drivers.container.supervisor import Started
from sublet.drivers.vm import mapping, qemu
from sublet.drivers.vm.channel import dump
from sublet.drivers.vm.disks import adopt, check, untouched
from sublet.drivers.vm.equipment import Passed, equip
from sublet.drivers.vm.memory import MemoryImage, Source
from sublet.drivers.vm.messages import Identity, Mode
from sublet.drivers.vm.plan import MachinePlan
from sublet.drivers.vm.qmp import monitor
from sublet.drivers.vm.streams import NeverReady
from sublet.drivers.vm.supervisor import Start, Supervision
from sublet.drivers.vm.templates import Templates, Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """What of a running machine's shape a save of it needs."""

    text: str
    memory: int
    vcpus: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the things of one machine are: its log, what its supervisor needs, its disk."""

    state: Path
    run: Path
    store: Path

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def base(self) -> Path:
        """What its memory was mapped from, while it runs; not there where that was empty."""
        return self.store / "base"

    def make(self) -> None:
        """Make the directories. Idempotent."""
        for directory in (self.state, self.run, self.store):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def shape(self) -> Saved:
        """What it was started as. Raises MemoryUnusable where nobody has written it down."""
        try:
            text = (self.run / "shape").read_text()
            shape = json.loads(text)
            return Saved(text, int(shape["memory"]), int(shape["vcpus"]))
        except (OSError, ValueError, KeyError) as error:
            raise MemoryUnusable("What machine it is has not been written down.") from error


class Starting:
    """The start of one machine."""

    def __init__(
        self, plan: MachinePlan, place: Place, cgroups: Cgroups, templates: Templates
    ) -> None:
        self._plan, self._place = plan, place
        self._cgroups, self._templates = cgroups, templates

    async def begin(self, *, attach: bool) -> Started:
        """Run the guest's command in a machine that has just booted, or in the memory of one."""
        plan = self._plan
        check(plan.disk.file)
        if plan.cold:
            return await self._fresh(None, None, attach=attach)
        async with AsyncExitStack() as stack:
            with trace.step("template"):
                turn = await stack.enter_async_context(self._templates.turn(plan.shape))
            if turn.source:
                if turn.source.disk:
                    with trace.step("disk"):
                        adopt(plan.disk.file, turn.source.disk)
                try:
                    return await self._fresh(turn.source, None, attach=attach)
                except NeverReady:
                    await turn.reject()
            return await self._fresh(None, turn, attach=attach)

    async def resume(
        self, memory: MemoryImage, identity: Identity | None, *, attach: bool, fork: bool
    ) -> Started:
        """Let the guest go on where its memory was saved."""
        check(self._plan.disk.file)
        source = memory.open(self._plan.shape.text, self._plan.uid)
        with contextlib.closing(source):
            async with self._started(source, runs=True) as start, AsyncExitStack() as stack:
                with trace.step("resume"):
                    await start.started()
                streams = Attachment.open(self._place.run) if attach else None
                if streams:  # before the guest says another word
                    stack.callback(streams.close)
                with trace.step("renew"):
                    await start.renew(self._plan.guest, identity, fork=fork)
                stack.pop_all()
        start.connection.close()
        return Started(start.pid, start.supervisor, streams)

    async def _fresh(self, source: Source | None, turn: Turn | None, *, attach: bool) -> Started:
        new = source is None and untouched(self._plan.disk.file)  # it will be joined to the image
        async with self._started(source, runs=False) as start:
            with trace.step("ready" if source else "boot"):
                await start.ready()
            if turn and turn.makes:
                with trace.step("make template"):
                    await self._keep(start, turn, disk=new)
            with trace.step("configure"):
                await start.configure(self._plan.guest, attach=attach)
        if attach:
            return Started(start.pid, start.supervisor, Attachment(start.connection))
        start.connection.close()
        return Started(start.pid, start.supervisor, None)

    @asynccontextmanager
    async def _started(self, source: Source | None, *, runs: bool) -> AsyncIterator[Start]:
        """The supervisor and its QEMU, until the block fails."""
        self._remember(source)
        with Passed() as passed, trace.step("launch"):
            hardware = equip(self._plan, source, passed)
            start = Start.begin(
                self._supervision(restored=source is not None, runs=runs),
                passed.descriptors,
                qemu.argv(hardware),
            )
        try:
            yield start
        except BaseException:
            await start.undo()
            raise

    def _remember(self, source: Source | None) -> None:
        """Leave what a save of the machine needs."""
        self._place.base.unlink(missing_ok=True)
        if source:
            os.link(source.base, self._place.base)
        (self._place.run / "shape").write_text(self._plan.shape.text)

    def _supervision(self, *, restored: bool, runs: bool) -> Supervision:
        plan = self._plan
        return Supervision(
            directory=self._place.run,
            log_file=self._place.log,
            log=plan.log,
            own_cgroups=self._cgroups.entrances(SUPERVISORS),
            cgroups=self._cgroups.entrances(plan.instance_id),
            uid=plan.uid,
            kvm=plan.acceleration == "kvm",
            console=plan.guest.mode is Mode.INIT,
            restored=restored,
            runs=runs,
        )

    async def _keep(self, start: Start, turn: Turn, *, disk: bool) -> None:
        """Make a template of the guest that has booted, with its `disk`, and let that go on. Where
        none can be made, the disk being full, say, the machine starts all the same."""
        await start.quiesce()
        async with monitor(self._place.run) as machine:
            try:
                saving = await turn.begin(None)
                await machine.stop()
                pid = mapping.qemu(self._cgroups, self._plan.instance_id)
                await dump(machine, saving, pid, self._plan.size.memory)
                if disk:
                    await saving.disk(self._plan.disk.file)
                turn.keep()
            except (SubletError, OSError) as error:
                log.warning("no template is made of %s: %s", self._plan.instance_id, error)
            await machine.resume()
        await start.go_on()
