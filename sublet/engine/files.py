"""Verbs on the files of instances: copies in and out, export."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from sublet.archive.transfer import Received
from sublet.domain.changes import made
from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import Instance
from sublet.drivers.access import Sender, Taker
from sublet.drivers.container import archive
from sublet.drivers.container.difference import Layers
from sublet.drivers.container.layer import cow
from sublet.drivers.vm import listings
from sublet.engine import access, showing
from sublet.engine.instances import Instances
from sublet.engine.paths import checked


class Files:
    """What can be done with the files of one daemon's instances."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle
        self._parts = instances.parts

    @contextlib.asynccontextmanager
    async def read(self, text: str, path: str, *, follow: bool) -> AsyncIterator[Sender]:
        """The file or directory at `path` as a tar stream that begins with it."""
        path = checked(path)
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
        path = checked(path)
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
        access.imaged(self._instances.get(text))

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
    async def changes(self, text: str, mount: str = "") -> AsyncIterator[Sender]:
        """What the instance has changed of its image's files: JSON objects, one a line, with
        `kind` (A: added, C: changed, D: deleted) and `path`; of a container's `type` (file,
        directory, link, special), what it `was` if that is another one, and `size`, too; `itself`
        where a directory's own owner or mode has changed.
        With `mount`, of the directory of the host that it has copy-on-write there; paths begin
        with `/` in that."""
        wanted = self._instances.get(text)
        instance_id = wanted.id
        access.layered(self._lifecycle, wanted)
        _check_mount(wanted, mount)

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with showing.mounted(self._lifecycle, instance_id, "diff") as instance:
                if instance.spec.vm:
                    comparing = self._comparing_guest(instance)
                else:
                    comparing = archive.comparing(await self._layers(instance, mount))
                async with comparing as courier:
                    yield courier

        async with self._lifecycle.visits.stay(instance_id, "diff", place()) as courier:
            yield courier

    @contextlib.asynccontextmanager
    async def changed(
        self, text: str, mount: str = "", paths: Sequence[str] = ()
    ) -> AsyncIterator[Sender]:
        """The files that `changes` tells of, but for deleted ones, as a tar stream: those at or
        below `paths`, with the directories on the way there; none: all. Containers only."""
        wanted = self._instances.get(text)
        _check_mount(wanted, mount)
        chosen = tuple(checked(path) for path in paths)
        if wanted.spec.vm:
            raise InvalidArgument(
                f"{wanted.name} is a VM, whose changes cannot be told from its disk alone.",
                hint="Copy what you want: sublet cp INSTANCE:/PATH .",
            )

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with showing.mounted(self._lifecycle, wanted.id, "diff") as instance:
                layers = await self._layers(instance, mount)
                layers = replace(layers, packed=True, paths=chosen)
                async with archive.comparing(layers) as courier:
                    yield courier

        async with self._lifecycle.visits.stay(wanted.id, "diff", place()) as courier:
            yield courier

    async def _layers(self, instance: Instance, mount: str) -> Layers:
        """What is to be compared: the instance's layer, or that of its mount copy-on-write."""
        layer = self._parts.containers.places(instance.id).layer
        base = self._parts.network.uid_base(instance.slot)
        if mount:
            upper = cow(layer.shown, mount) / "upper"
            if not upper.is_dir():
                raise WrongState(f"{instance.name} has not been started yet.")
            return Layers(str(upper), _source(instance, mount), base)
        points = made(mount.destination for mount in instance.spec.mounts)
        return Layers(
            upper=str(layer.upper),
            lower=str(await showing.lower(self._lifecycle, instance)),
            base=base,
            points=tuple(sorted(points.points)),
            parents=tuple(sorted(points.parents)),
        )

    def _comparing_guest(self, instance: Instance) -> AbstractAsyncContextManager[Sender]:
        mounts = (mount.destination for mount in instance.spec.mounts)
        guest = access.guest(self._lifecycle, instance)
        return listings.comparing(guest, made((*mounts, *guest.own)))


def _source(instance: Instance, mount: str) -> str:
    """The host's directory that an instance has copy-on-write at `mount`; empty for none."""
    mounts = instance.spec.mounts
    return next((m.source for m in mounts if m.cow and m.destination == mount), "")


def _check_mount(instance: Instance, mount: str) -> None:
    if mount and not _source(instance, mount):
        raise InvalidArgument(
            f"{instance.name} has no directory copy-on-write at '{mount}'.",
            hint="`sublet inspect` shows its mounts; one made with :cow can be compared.",
        )
