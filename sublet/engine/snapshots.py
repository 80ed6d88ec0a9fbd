"""Verbs on snapshots: take, list, remove; what is made of them is next door."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sublet.domain.disk_usage import Usage
from sublet.domain.errors import NoSuchSnapshot
from sublet.domain.instance import Instance
from sublet.domain.leftover import Leftover
from sublet.domain.names import is_id, validate_name
from sublet.domain.snapshots import Snapshot
from sublet.drivers import files, usage
from sublet.drivers.copies import Part
from sublet.drivers.vm.memory import MemoryImage
from sublet.engine import hibernation
from sublet.engine.contents import Contents, milliseconds
from sublet.engine.instances import Instances

Begun = Callable[[], None]
"""Called when nothing speaks against it any more, and the copying begins."""


def unheard() -> None:
    """A `Begun` of which nobody wants to know."""


class Snapshots:
    """The snapshots of one daemon's instances. A row is there before its files and goes after."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.lifecycle, self.parts = instances.lifecycle, instances.parts
        self.store, self.pool = self.parts.snapshot_store, self.parts.containers.pool
        self.contents = Contents(self.lifecycle)
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
        self, text: str, name: str = "", *, memory: bool = False, begun: Begun = unheard
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
        volumes = tuple(volume.name for volume in self.lifecycle.volumes.own(instance))
        snapshot = Snapshot(
            secrets.token_hex(6), name, instance.id, time.time(), volumes=volumes, memory=memory
        )
        self._making.add(snapshot.id)
        self.store.put(snapshot)
        try:
            parts, place = self.contents.parts_of(instance), self.pool.snapshot(snapshot.id)
            target = self.memory(snapshot).directory if memory else None
            pairs = [(part, place / part.name) for part in parts]
            paused = await self.contents.copy(instance, pairs, "snapshot", target)
            self.lifecycle.current(instance)  # raises, unless it is still there
        except BaseException:
            await self.lifecycle.anyway(self._remove(snapshot))
            raise
        finally:
            self._making.discard(snapshot.id)
        snapshot = replace(snapshot, complete=True)
        self.store.put(snapshot)
        self.lifecycle.tell(
            "snapshot", instance, snapshot=snapshot.id, paused_ms=milliseconds(paused)
        )
        return snapshot

    async def remove(self, text: str) -> None:
        """Delete a snapshot. Forks that were made of it stay."""
        await self._remove(self.get(text))

    async def _remove(self, snapshot: Snapshot) -> None:
        self.store.put(replace(snapshot, complete=False))
        await files.remove(self.pool.snapshot(snapshot.id))
        self.store.delete(snapshot.id)

    # What is in one

    def memory(self, snapshot: Snapshot) -> MemoryImage:
        """Where the memory is, of a snapshot that has it."""
        return MemoryImage(self.pool.snapshot(snapshot.id) / "memory-image")

    def kept(self, snapshot: Snapshot, instance: Instance) -> list[tuple[Part, Path]]:
        """The parts of a snapshot, each with the directory of the instance's own part."""
        own = {part.name: part for part in self.contents.parts_of(instance)}
        here = self.pool.snapshot(snapshot.id)
        writable = self.contents.copies_on_write(instance)
        written = (name for name in writable if (here / name).exists())
        names = [name for name in ("layer", *written, *snapshot.volumes) if name in own]
        return [
            (replace(own[name], stored=here / name, point=here / "nowhere"), own[name].stored)
            for name in names
        ]

    # Leftovers

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
