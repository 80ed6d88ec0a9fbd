"""What instances have on disk of their own, and copies of it while they run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sublet.domain.errors import WrongState
from sublet.domain.instance import Instance
from sublet.drivers import copies, trace
from sublet.drivers.container.layer import cow
from sublet.drivers.copies import Part
from sublet.engine import altering, hibernation
from sublet.engine.lifecycle import Lifecycle


def milliseconds(paused: float) -> str:
    """A pause of so many seconds, as events tell it."""
    return f"{paused * 1000:.1f}"


class Contents:
    """The own files of one daemon's instances."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle, self.parts = lifecycle, lifecycle.parts

    def parts_of(self, instance: Instance) -> list[Part]:
        """The layer first; what it has written to directories that it has copy-on-write; and the
        volumes that are the instance's own. A limited disk holds the layer and all of those."""
        layer = self.parts.containers.writable.layer(instance.id)
        found = [Part("layer", layer.directory, "upper", layer.disk)]
        if not layer.image.exists():
            found += [
                Part(name, at, "upper", layer.disk)
                for name, at in self.copies_on_write(instance).items()
            ]
        for volume in self.lifecycle.volumes.own(instance):
            directory = self.parts.volumes.directory(volume)
            point = self.parts.volumes.mounts / volume.id
            found.append(Part(volume.name, directory, "data", point))
        return found

    def copies_on_write(self, instance: Instance) -> dict[str, Path]:
        """Where the parts are that hold what it writes to directories of the host."""
        holder = self.parts.containers.writable.layer(instance.id).directory
        places = (cow(holder, mount.destination) for mount in instance.spec.mounts if mount.cow)
        return {f"cow-{place.name}": place for place in places}

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
