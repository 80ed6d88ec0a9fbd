"""Rollbacks: an instance gets back the files that one of its snapshots has kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sublet.domain.errors import SubletError, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.snapshots import Snapshot
from sublet.drivers import copies, disk, trace
from sublet.drivers.copies import Part
from sublet.drivers.vm import saving
from sublet.engine import hibernation
from sublet.engine.snapshots import Begun, Snapshots, unheard

log = logging.getLogger(__name__)


class Rollbacks:
    """The rollbacks of one daemon's instances."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.snapshots, self.contents = snapshots, snapshots.contents
        self.instances, self.lifecycle = snapshots.instances, snapshots.lifecycle
        self.parts = snapshots.parts

    async def roll_back(self, text: str, name: str, *, begun: Begun = unheard) -> None:
        """Give an instance back the files that one of its snapshots has kept. A running one is
        stopped and started again; of a snapshot with memory it goes on from there.

        Once it has begun it is carried through, across a crash too.
        """
        instance = self.instances.get(text)
        snapshot = self.snapshots.get(name, instance.id)
        if instance.state is State.HIBERNATED and not snapshot.memory:
            raise WrongState(
                f"{instance.name} is hibernated; its memory does not go with other files.",
                hint=f"`sublet wake {instance.name}` first, or `sublet stop {instance.name}`, "
                "which drops its memory.",
            )
        begun()
        kept = self.snapshots.kept(snapshot, instance)
        names = {part.name for part, _ in kept}
        parts = [part for part in self.contents.parts_of(instance) if part.name in names]
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
        await saving.copy(self.snapshots.memory(snapshot), memory.directory)
        current = self.lifecycle.current(instance)
        self.lifecycle.move(replace(current, wanted=True), State.HIBERNATED)

    async def recover(self) -> None:
        """Finish rollbacks that had begun before a daemon was killed."""
        for instance in self.parts.store.all():
            parts = self.contents.parts_of(instance)
            try:
                for part in parts:
                    disk.thaw(part.point)
                if copies.is_ready(parts):
                    await copies.replace(parts)
                else:
                    await copies.forget(parts)
            except (OSError, SubletError) as error:
                log.error("a rollback of %s cannot be finished: %s", instance.name, error)
