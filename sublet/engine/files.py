"""Verbs on the files of instances: copies in and out, export."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sublet.archive.transfer import Received
from sublet.domain.changes import made
from sublet.domain.copying import inside
from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import Instance
from sublet.drivers.access import Sender, Taker
from sublet.drivers.container import archive
from sublet.drivers.container.difference import Layers
from sublet.drivers.vm import listings
from sublet.engine import access
from sublet.engine.instances import Instances


class Files:
    """What can be done with the files of one daemon's instances."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle
        self._parts = instances.parts

    @contextlib.asynccontextmanager
    async def read(self, text: str, path: str, *, follow: bool) -> AsyncIterator[Sender]:
        """The file or directory at `path` as a tar stream that begins with it."""
        path = _checked(path)
        instance_id = self._instances.get(text).id

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with (
                access.entered(self._lifecycle, instance_id, "copy") as files,
                files.sending(path, follow=follow) as courier,
            ):
                yield courier

        async with self._lifecycle.visits.stay(instance_id, "copy", place()) as courier:
            yield courier

    async def write(
        self, text: str, path: str, pieces: AsyncIterator[bytes], *, archived: bool, keep: bool
    ) -> Received:
        """Unpack a tar stream so that it lands at `path` as `cp` says, or, `archived`, into the
        directory `path`. `keep`: owners are the archive's, not root."""
        path = _checked(path)
        instance = self._instances.get(text)
        if instance.spec.read_only:
            raise WrongState(f"{instance.name} was made with --read-only.")

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Taker]:
            async with (
                access.entered(self._lifecycle, instance.id, "copy") as files,
                files.receiving(path, archive=archived, keep=keep) as courier,
            ):
                yield courier

        async with self._lifecycle.visits.stay(instance.id, "copy", place()) as courier:
            return await courier.feed(pieces)

    @contextlib.asynccontextmanager
    async def export(self, text: str) -> AsyncIterator[Sender]:
        """The instance's whole file system as a tar stream, without what is mounted in it."""
        instance_id = self._instances.get(text).id

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with (
                access.entered(self._lifecycle, instance_id, "export") as files,
                files.exporting() as courier,
            ):
                yield courier

        async with self._lifecycle.visits.stay(instance_id, "export", place()) as courier:
            yield courier

    @contextlib.asynccontextmanager
    async def changes(self, text: str) -> AsyncIterator[Sender]:
        """What the instance has changed of its image's files: JSON objects, one a line, with
        `kind` (A: added, C: changed, D: deleted) and `path`."""
        wanted = self._instances.get(text)
        instance_id = wanted.id
        access.layered(self._lifecycle, wanted)

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with self._lifecycle.mounted(instance_id, "diff") as instance:
                if instance.spec.vm:
                    comparing = self._comparing_guest(instance)
                else:
                    comparing = self._comparing(instance, await self._lifecycle.lower(instance))
                async with comparing as courier:
                    yield courier

        async with self._lifecycle.visits.stay(instance_id, "diff", place()) as courier:
            yield courier

    def _comparing(self, instance: Instance, lower: Path) -> AbstractAsyncContextManager[Sender]:
        points = made(mount.destination for mount in instance.spec.mounts)
        layers = Layers(
            upper=str(self._parts.containers.places(instance.id).upper),
            lower=str(lower),
            base=self._parts.network.uid_base(instance.slot),
            points=tuple(sorted(points.points)),
            parents=tuple(sorted(points.parents)),
        )
        return archive.comparing(layers)

    def _comparing_guest(self, instance: Instance) -> AbstractAsyncContextManager[Sender]:
        mounts = (mount.destination for mount in instance.spec.mounts)
        guest = access.guest(self._lifecycle, instance)
        return listings.comparing(guest, made((*mounts, *guest.own)))


def _checked(path: str) -> str:
    if not path or "\0" in path:
        raise InvalidArgument("A path in the instance is needed.")
    return inside(path)
