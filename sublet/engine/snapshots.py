"""Verbs on snapshots: take, list, remove, fork, roll back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sublet.domain.disk_usage import Usage
from sublet.domain.errors import NoSuchInstance, NoSuchSnapshot, SubletError, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.leftover import Leftover
from sublet.domain.names import is_id, validate_name
from sublet.domain.ports import Port
from sublet.domain.size import Size
from sublet.domain.snapshots import Snapshot, forked
from sublet.domain.volumes import Volume, renamed
from sublet.drivers import copies, disk, files, trace, usage
from sublet.drivers.container.layer import cow
from sublet.drivers.copies import Part
from sublet.drivers.vm import saving
from sublet.drivers.vm.memory import MemoryImage
from sublet.engine import altering, hibernation, seeds
from sublet.engine.instances import Instances
from sublet.engine.market import Report, silent

log = logging.getLogger(__name__)

Begun = Callable[[], None]
"""Called when nothing speaks against it any more, and the copying begins."""


def _unheard() -> None:
    pass


class Snapshots:
    """The snapshots of one daemon's instances. A row is there before its files and goes after."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.lifecycle, self.parts = instances.lifecycle, instances.parts
        self.store, self.pool = self.parts.snapshot_store, self.parts.containers.pool
        self._making: set[str] = set()

    # Looking

    def every(self, instance: str = "") -> list[Snapshot]:
        """All complete snapshots, or an instance's; the newest first."""
        found = self.store.of(self.instances.get(instance).id) if instance else self.store.every()
        return [snapshot for snapshot in found if snapshot.complete]

    def get(self, text: str, instance: str = "") -> Snapshot:
        """The snapshot that an id, its beginning or a name means; of several with that name the
        newest. Raises NoSuchSnapshot."""
        known = self.every(instance)
        matches = [s for s in known if text in (s.id, s.name)]
        matches = matches or [s for s in known if text and s.id.startswith(text)]
        if not matches:
            raise NoSuchSnapshot(f"There is no snapshot '{text}'.")
        return matches[0]

    def size(self, snapshot: Snapshot) -> int:
        """Bytes that it refers to, shared ones among them. Not for the event loop."""
        return usage.allocated(self.pool.snapshot(snapshot.id))

    async def usage(self) -> Usage:
        """What snapshots refer to; most of it is shared with their instances."""
        found = self.every()
        total = sum([await asyncio.to_thread(self.size, snapshot) for snapshot in found])
        return Usage("snapshots", len(found), len(found), total, 0)

    # Taking and removing

    async def take(
        self, text: str, name: str = "", *, memory: bool = False, begun: Begun = _unheard
    ) -> Snapshot:
        """Keep the files of an instance as they are now, with `memory` that of a running VM, too;
        a running one is paused for a moment.

        Raises NoSuchInstance, HibernateNeedsVm, WrongState, DiskFull; nothing is left then.
        """
        instance = self.instances.get(text)
        if memory:
            hibernation.check_running(instance)
        if name:
            validate_name(name, "a snapshot")
        begun()
        volumes = tuple(volume.name for volume in self._own(instance))
        snapshot = Snapshot(
            secrets.token_hex(6), name, instance.id, time.time(), volumes=volumes, memory=memory
        )
        self._making.add(snapshot.id)
        self.store.put(snapshot)
        try:
            pairs = [
                (p, self.pool.snapshot(snapshot.id) / p.name) for p in self.own_parts(instance)
            ]
            target = self._memory(snapshot).directory if memory else None
            paused = await self.copy(instance, pairs, "snapshot", target)
            self.lifecycle.current(instance)  # raises, unless it is still there
        except BaseException:
            await self.lifecycle.anyway(self._remove(snapshot))
            raise
        finally:
            self._making.discard(snapshot.id)
        snapshot = replace(snapshot, complete=True)
        self.store.put(snapshot)
        self.lifecycle.tell("snapshot", instance, snapshot=snapshot.id, paused_ms=_ms(paused))
        return snapshot

    async def remove(self, text: str) -> None:
        """Delete a snapshot. Forks that were made of it stay."""
        await self._remove(self.get(text))

    async def _remove(self, snapshot: Snapshot) -> None:
        self.store.put(replace(snapshot, complete=False))
        await files.remove(self.pool.snapshot(snapshot.id))
        self.store.delete(snapshot.id)

    # Copying

    def own_parts(self, instance: Instance) -> list[Part]:
        """The layer first; what it has written to directories that it has copy-on-write; and the
        volumes that are the instance's own. A limited disk holds the layer and all of those."""
        layer = self.parts.containers.writable.layer(instance.id)
        found = [Part("layer", layer.directory, "upper", layer.disk)]
        if not layer.image.exists():
            found += [
                Part(name, at, "upper", layer.disk)
                for name, at in self._copies_on_write(instance).items()
            ]
        for volume in self.lifecycle.volumes.own(instance):
            directory = self.parts.volumes.directory(volume)
            point = self.parts.volumes.mounts / volume.id
            found.append(Part(volume.name, directory, "data", point))
        return found

    def _copies_on_write(self, instance: Instance) -> dict[str, Path]:
        """Where the parts are that hold what it writes to directories of the host."""
        holder = self.parts.containers.writable.layer(instance.id).directory
        places = (cow(holder, mount.destination) for mount in instance.spec.mounts if mount.cow)
        return {f"cow-{place.name}": place for place in places}

    def _memory(self, snapshot: Snapshot) -> MemoryImage:
        """Where the memory is, of a snapshot that has it."""
        return MemoryImage(self.pool.snapshot(snapshot.id) / "memory-image")

    @asynccontextmanager
    async def _still(self, instance: Instance, memory: Path | None) -> AsyncIterator[bool]:
        """It stands still, and its memory is at `memory`; False where it does not run."""
        if memory is None:
            async with altering.still(self.lifecycle, instance.id) as running:
                yield running
            return
        hibernation.check_running(self.lifecycle.current(instance))
        async with hibernation.saved(self.lifecycle, instance, memory):
            yield True

    async def copy(
        self,
        instance: Instance,
        pairs: Sequence[tuple[Part, Path]],
        action: str,
        memory: Path | None = None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> float:
        """Copy parts of an instance that may run, and its memory; the seconds that it was
        paused. `still` is called when it is."""
        spent = 0.0

        @asynccontextmanager
        async def pause() -> AsyncIterator[None]:
            nonlocal spent
            async with self.lifecycle.locks.hold(instance.id, action):
                begun = time.monotonic()
                async with self._still(instance, memory) as running:
                    still()
                    with trace.step("pause"):
                        yield
                spent = time.monotonic() - begun if running else 0.0

        with trace.request(action, instance.id):
            try:
                await copies.copy(pairs, pause)
            except FileNotFoundError as error:
                if self.parts.store.get(instance.id):
                    raise
                raise WrongState(f"{instance.name} was removed meanwhile.") from error
        return spent

    def _kept(self, snapshot: Snapshot, instance: Instance) -> list[tuple[Part, Path]]:
        """The parts of a snapshot, each with the directory of the instance's own part."""
        own = {part.name: part for part in self.own_parts(instance)}
        here = self.pool.snapshot(snapshot.id)
        written = (name for name in self._copies_on_write(instance) if (here / name).exists())
        names = [name for name in ("layer", *written, *snapshot.volumes) if name in own]
        return [
            (replace(own[name], stored=here / name, point=here / "nowhere"), own[name].stored)
            for name in names
        ]

    # Forking

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
        begun: Begun = _unheard,
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
            source = self.get(source, self.instances.get(of).id).id
        room = await self._admit(source, wait, report)
        snapshot, origin = self._source(source)  # it may have waited long for its room
        volumes = {v.name: self.lifecycle.volumes.twin(v) for v in self._own(origin)}
        connections = self.lifecycle.connections
        spec = connections.inherited(forked(origin.spec, name, ports, lease), origin)
        names = {old: volume.name for old, volume in volumes.items()}
        spec = replace(spec, mounts=renamed(spec.mounts, names))
        with_memory, running = self._with_memory(snapshot, origin), self._runs(snapshot, origin)
        admitted = room == spec.size  # unless it was resized meanwhile
        fork = self.instances.add_fork(spec, origin.digest, running=running, admitted=admitted)
        begun()
        try:
            async with self.lifecycle.locks.hold(fork.id, "fork"):
                connections.follow(origin, fork)
                seeds.inherit(self.parts.config.root, origin.id, fork.id)
                for volume in volumes.values():
                    self.parts.volume_store.add(volume.copied_for(fork.id))
                memory = hibernation.image(self.lifecycle, fork) if with_memory else None
                paused = await self._fill(fork, origin, snapshot, volumes, memory)
            self.lifecycle.current(fork)  # raises, unless it is still there
        except BaseException:
            await self.lifecycle.anyway(self.lifecycle.remove(fork, volumes=True))
            raise
        self.lifecycle.tell("forked", fork, source=origin.id, paused_ms=_ms(paused))
        if running:
            await self.lifecycle.launch(fork, memory=memory)
            await hibernation.drop(self.lifecycle, fork)
        else:
            self.lifecycle.move(replace(fork, kept=True), State.STOPPED)
        return self.parts.store.get(fork.id) or fork

    async def _admit(self, source: str, wait: bool, report: Report) -> Size | None:
        """Return when there is room for a fork that is to run: its size; None for one that is not.
        Who calls it adds the row in the same breath."""
        snapshot, origin = self._source(source)
        if not self._runs(snapshot, origin):
            return None
        self.lifecycle.permit(origin.spec, "")
        await self.instances.market.admit(origin.spec, wait=wait, report=report)
        return origin.spec.size

    def _runs(self, snapshot: Snapshot | None, origin: Instance) -> bool:
        """Whether a fork of it runs."""
        return origin.state in LIVE or self._with_memory(snapshot, origin)

    def _with_memory(self, snapshot: Snapshot | None, origin: Instance) -> bool:
        return snapshot.memory if snapshot else origin.spec.vm and origin.state in LIVE

    def _own(self, instance: Instance) -> list[Volume]:
        return self.lifecycle.volumes.own(instance)

    def _source(self, text: str) -> tuple[Snapshot | None, Instance]:
        """The instance that is meant, or the snapshot and its instance."""
        try:
            return None, self.instances.get(text)
        except NoSuchInstance:
            try:
                snapshot = self.get(text)
            except NoSuchSnapshot:
                raise NoSuchInstance(f"There is no instance and no snapshot '{text}'.") from None
        return snapshot, self.instances.get(snapshot.instance)

    async def _fill(
        self,
        fork: Instance,
        origin: Instance,
        snapshot: Snapshot | None,
        volumes: dict[str, Volume],
        memory: MemoryImage | None,
    ) -> float:
        """Give a fork, which does not run yet, its files, and its memory; the seconds that its
        source was paused."""
        targets = {name: self.parts.volumes.directory(v) for name, v in volumes.items()}
        targets["layer"] = self.parts.containers.writable.layer(fork.id).directory
        targets |= self._copies_on_write(fork)
        if snapshot is None:
            pairs = [(part, targets[part.name]) for part in self.own_parts(origin)]
            paused = await self.copy(origin, pairs, "fork", memory.directory if memory else None)
            self.lifecycle.current(origin)  # raises, unless it is still there
            return paused
        kept = self._kept(snapshot, origin)
        await copies.copy([(part, targets[part.name]) for part, _ in kept], None)
        if memory:
            await saving.copy(self._memory(snapshot), memory.directory)
        return 0.0

    # Rolling back

    async def roll_back(self, text: str, name: str, *, begun: Begun = _unheard) -> None:
        """Give an instance back the files that one of its snapshots has kept. A running one is
        stopped and started again; of a snapshot with memory it goes on from there.

        Once it has begun it is carried through, across a crash too.
        """
        instance = self.instances.get(text)
        snapshot = self.get(name, instance.id)
        if instance.state is State.HIBERNATED and not snapshot.memory:
            raise WrongState(
                f"{instance.name} is hibernated; its memory does not go with other files.",
                hint=f"`sublet wake {instance.name}` first, or `sublet stop {instance.name}`, "
                "which drops its memory.",
            )
        begun()
        kept = self._kept(snapshot, instance)
        parts = [
            part for part in self.own_parts(instance) if part.name in {k.name for k, _ in kept}
        ]
        with trace.request("rollback", instance.id):
            await self._prepare(parts, kept)
            await self._swap(instance, parts, snapshot)

    async def _prepare(self, parts: Sequence[Part], kept: Sequence[tuple[Part, Path]]) -> None:
        try:
            await copies.forget(parts)
            with trace.step("prepare"):
                await copies.prepare(kept)
        except BaseException:
            await self.lifecycle.anyway(copies.forget(parts))
            raise

    async def _swap(self, instance: Instance, parts: Sequence[Part], snapshot: Snapshot) -> None:
        """Put what is prepared in its place, while the instance does not run."""
        running = instance.state in LIVE
        self.lifecycle.restarting.add(instance.id)
        try:
            await self.instances.stop(instance.id)
            async with self.lifecycle.locks.hold(instance.id, "rollback"):
                await self._check_stopped(instance, parts)
                with trace.step("mark"):
                    copies.mark_ready(parts)
                with trace.step("replace"):
                    await copies.replace(parts)
                if snapshot.memory:
                    await self._lay_down(instance, snapshot)
            self.lifecycle.tell("rolled-back", instance)
            if snapshot.memory:
                await self.instances.wake(instance.id)
            elif running:
                await self.instances.start(instance.id)
        finally:
            self.lifecycle.restarting.discard(instance.id)
            self.instances.market.claims.drop(instance.id)

    async def _check_stopped(self, instance: Instance, parts: Sequence[Part]) -> None:
        """For who has its lock. Raises WrongState where somebody else started it meanwhile: its
        files would be taken away below it. What is prepared goes then."""
        current = self.lifecycle.current(instance)
        if current.state is not State.STOPPED:
            await self.lifecycle.anyway(copies.forget(parts))
            raise WrongState(
                f"{current.name} is {current.state}: somebody started it during the rollback. "
                "Its files are as before.",
                hint="Try again.",
            )

    async def _lay_down(self, instance: Instance, snapshot: Snapshot) -> None:
        """Let a VM, whose disk is that of the snapshot again, sleep with its memory. For who has
        its lock."""
        memory = hibernation.image(self.lifecycle, instance)
        await saving.copy(self._memory(snapshot), memory.directory)
        current = self.lifecycle.current(instance)
        self.lifecycle.move(replace(current, wanted=True), State.HIBERNATED)

    # Recovery

    async def recover(self) -> None:
        """Finish rollbacks that had begun, and remove what killed daemons left half-made."""
        for instance in self.parts.store.all():
            parts = self.own_parts(instance)
            try:
                for part in parts:
                    disk.thaw(part.point)
                if copies.is_ready(parts):
                    await copies.replace(parts)
                else:
                    await copies.forget(parts)
            except (OSError, SubletError) as error:
                log.error("a rollback of %s cannot be finished: %s", instance.name, error)
        await self.clean()

    def leftovers(self) -> list[Leftover]:
        """Snapshots that are not complete, and directories of none."""
        known = {snapshot.id for snapshot in self.every()} | self._making
        place = self.pool.snapshot("")
        strays = sorted(p.name for p in place.iterdir()) if place.is_dir() else []
        rows = {snapshot.id for snapshot in self.store.every()}
        return [
            Leftover("snapshot", str(place / name))
            for name in sorted({*strays, *rows} - known)
            if is_id(name) or name in strays
        ]

    async def clean(self) -> None:
        """Remove what `leftovers` finds."""
        for leftover in self.leftovers():
            await files.remove(Path(leftover.name))
            self.store.delete(Path(leftover.name).name)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
