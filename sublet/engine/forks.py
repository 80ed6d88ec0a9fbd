"""Forks: new instances with the files that others have now, or snapshots have kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sublet.domain.errors import NoSuchInstance, NoSuchSnapshot
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.ports import Port
from sublet.domain.progress import Report, silent
from sublet.domain.size import Size
from sublet.domain.snapshots import Snapshot, forked
from sublet.domain.spec import InstanceSpec
from sublet.domain.volumes import Volume, renamed
from sublet.drivers import copies
from sublet.drivers.vm import saving
from sublet.drivers.vm.memory import MemoryImage
from sublet.engine import hibernation, seeds
from sublet.engine.contents import milliseconds
from sublet.engine.snapshots import Begun, Snapshots, unheard


@dataclass(frozen=True, slots=True)
class _Source:
    """What a fork is made of: an instance as it is now, or as one of its snapshots has kept it."""

    instance: Instance
    snapshot: Snapshot | None = None

    @property
    def with_memory(self) -> bool:
        """Whether a fork goes on from the source's memory."""
        if self.snapshot:
            return self.snapshot.memory
        return self.instance.spec.vm and self.instance.state in LIVE

    @property
    def runs(self) -> bool:
        """Whether a fork runs."""
        return self.instance.state in LIVE or self.with_memory


class Forks:
    """What makes the forks of one daemon's instances and snapshots."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.snapshots, self.contents = snapshots, snapshots.contents
        self.instances, self.lifecycle = snapshots.instances, snapshots.lifecycle
        self.parts = snapshots.parts

    async def fork(
        self,
        source: str,
        name: str = "",
        ports: tuple[Port, ...] | None = None,
        *,
        of: str = "",
        lease: str | None = None,
        wait: bool = True,
        report: Report = silent,
        begun: Begun = unheard,
    ) -> Instance:
        """A new instance with the files that an instance has now, or a snapshot has kept; `of`:
        one of that instance's snapshots, and nobody else's. It
        runs if the instance runs, under an id, a name and an address of its own; of a running
        VM, or a snapshot with memory, it goes on from there. One that is to run waits and raises
        as `run` does.

        Volumes that have a name are shared with the source, others are copied, and all of a VM's.
        With `lease` it lasts as long as that, not as its source's.
        """
        if of:
            source = self.snapshots.get(source, self.instances.get(of).id).id
        room = await self._admit(source, wait, report)
        found = self._source(source)  # it may have waited long for its room
        origin = found.instance
        own = self.lifecycle.volumes.own(origin)
        volumes = {volume.name: self.lifecycle.volumes.twin(volume) for volume in own}
        fork = self._add(found, forked(origin.spec, name, ports, lease), volumes, room)
        begun()
        memory = hibernation.image(self.lifecycle, fork) if found.with_memory else None
        try:
            paused = await self._fill(fork, found, volumes, memory)
        except BaseException:
            await self.lifecycle.anyway(self.lifecycle.remove(fork, volumes=True))
            raise
        self.lifecycle.tell("forked", fork, source=origin.id, paused_ms=milliseconds(paused))
        await self._launch(fork, memory)
        return self.parts.store.get(fork.id) or fork

    def _source(self, text: str) -> _Source:
        """The instance that is meant, or the snapshot and its instance."""
        try:
            return _Source(self.instances.get(text))
        except NoSuchInstance:
            try:
                snapshot = self.snapshots.get(text)
            except NoSuchSnapshot:
                raise NoSuchInstance(f"There is no instance and no snapshot '{text}'.") from None
        return _Source(self.instances.get(snapshot.instance), snapshot)

    async def _admit(self, text: str, wait: bool, report: Report) -> Size | None:
        """Return when there is room for a fork that is to run: its size; None for one that is not.
        Who calls it adds the row in the same breath."""
        source = self._source(text)
        if not source.runs:
            return None
        spec = source.instance.spec
        self.lifecycle.permit(spec, "")
        await self.instances.market.admit(spec, wait=wait, report=report)
        return spec.size

    def _add(
        self, source: _Source, spec: InstanceSpec, volumes: dict[str, Volume], room: Size | None
    ) -> Instance:
        """The row of a fork that asks for `spec`, on the networks of its source and with the
        volumes of its own. There may be `room` for it."""
        spec = self.lifecycle.connections.inherited(spec, source.instance)
        names = {old: volume.name for old, volume in volumes.items()}
        spec = replace(spec, mounts=renamed(spec.mounts, names))
        admitted = room == spec.size  # unless it was resized meanwhile
        digest = source.instance.digest
        return self.instances.add_fork(spec, digest, running=source.runs, admitted=admitted)

    async def _fill(
        self,
        fork: Instance,
        source: _Source,
        volumes: dict[str, Volume],
        memory: MemoryImage | None,
    ) -> float:
        """Give a fork, which does not run yet, what it has of its source; the seconds that its
        source was paused."""
        async with self.lifecycle.locks.hold(fork.id, "fork"):
            self.lifecycle.connections.follow(source.instance, fork)
            seeds.inherit(self.parts.config.root, source.instance.id, fork.id)
            for volume in volumes.values():
                self.parts.volume_store.add(volume.copied_for(fork.id))
            paused = await self._copy(fork, source, volumes, memory)
        self.lifecycle.current(fork)  # raises, unless it is still there
        return paused

    async def _copy(
        self,
        fork: Instance,
        source: _Source,
        volumes: dict[str, Volume],
        memory: MemoryImage | None,
    ) -> float:
        """Give it the files, and the memory; the seconds that its source was paused."""
        targets = {name: self.parts.volumes.directory(v) for name, v in volumes.items()}
        targets["layer"] = self.parts.containers.writable.layer(fork.id).directory
        targets |= self.contents.copies_on_write(fork)
        origin, snapshot = source.instance, source.snapshot
        if snapshot is None:
            pairs = [(part, targets[part.name]) for part in self.contents.parts_of(origin)]
            place = memory.directory if memory else None
            paused = await self.contents.copy(origin, pairs, "fork", place)
            self.lifecycle.current(origin)  # raises, unless it is still there
            return paused
        kept = self.snapshots.kept(snapshot, origin)
        await copies.copy([(part, targets[part.name]) for part, _ in kept], None)
        if memory:
            await saving.copy(self.snapshots.memory(snapshot), memory.directory)
        return 0.0

    async def _launch(self, fork: Instance, memory: MemoryImage | None) -> None:
        """Start it where its source runs, and from its memory where it has one."""
        if fork.wanted:
            await self.lifecycle.launch(fork, memory=memory)
            await hibernation.drop(self.lifecycle, fork)
        else:
            self.lifecycle.move(replace(fork, kept=True), State.STOPPED)
