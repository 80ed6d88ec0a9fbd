"""Watches of directories in instances that run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from sublet.domain.errors import CopyFailed, SubletError, WrongState
from sublet.domain.file_events import WATCHES_MOST, Events, lines
from sublet.domain.instance import LIVE
from sublet.drivers.access import Sender
from sublet.engine import access
from sublet.engine.instances import Instances
from sublet.engine.paths import checked


class Telling:
    """What happens, as JSON lines, until the instance ends."""

    def __init__(self, courier: Sender) -> None:
        self._courier = courier

    async def stream(self) -> AsyncIterator[bytes]:
        """The first line is `ready`: from then on nothing is missed."""
        events, begun = Events(), False
        try:
            async for piece in self._courier.stream():
                if found := events.feed(piece):
                    begun = True
                    yield lines(found)
        except SubletError as error:
            if not begun or isinstance(error, CopyFailed):
                raise
            return  # the instance has ended


class FileWatches:
    """The watches of one daemon's instances: at most WATCHES_MOST of each at a time."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle
        self._counts: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def watch(self, text: str, path: str, *, recursive: bool) -> AsyncIterator[Telling]:
        """Tells what happens to what is in the directory `path`, or to the file; `recursive`:
        and in what is below it. Raises NoSuchPath, CopyFailed, WrongState."""
        path, instance = checked(path), self._instances.get(text)
        if instance.state not in LIVE:
            raise WrongState(
                f"{instance.name} is {instance.state}: nothing happens in it.",
                hint=f"`sublet start {instance.name}` first.",
            )
        if self._counts[instance.id] >= WATCHES_MOST:
            raise WrongState(
                f"{instance.name} is watched by {WATCHES_MOST} already.", hint="End one of them."
            )

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with (
                access.entered(self._lifecycle, instance.id, "watch") as files,
                files.watching(path, recursive=recursive) as courier,
            ):
                yield courier

        self._counts[instance.id] += 1
        try:
            async with self._lifecycle.visits.stay(instance.id, "watch", place()) as courier:
                yield Telling(courier)
        finally:
            self._counts[instance.id] -= 1
            if not self._counts[instance.id]:
                del self._counts[instance.id]
