"""Verbs on volumes: create, list, inspect, remove, prune; and what instances need of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from sublet.domain.disk_usage import Usage
from sublet.domain.errors import InvalidArgument, NoSuchVolume, VolumeInUse
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance
from sublet.domain.leftover import Leftover
from sublet.domain.machine import DEFAULT_DISK
from sublet.domain.mounts import Mount, MountType, is_anonymous, validate_volume, with_volumes
from sublet.domain.size import check_disk
from sublet.domain.spec import InstanceSpec
from sublet.domain.volumes import Volume, names_of, removable
from sublet.engine.locks import Locks
from sublet.engine.parts import Parts


class Volumes:
    """The volumes of one daemon. A row is there before its directory and goes after it."""

    def __init__(self, parts: Parts, locks: Locks) -> None:
        self.parts, self._locks = parts, locks
        self.store, self.files = parts.volume_store, parts.volumes

    async def create(
        self, name: str = "", *, size: int = 0, labels: Mapping[str, str] | None = None
    ) -> Volume:
        """Make a volume, of at most `size` bytes unless that is 0; without a name, under one that
        nobody chose. Raises VolumeExists."""
        name = validate_volume(name) if name else secrets.token_hex(32)
        volume = self._new(name, check_disk(size) if size else 0, labels or {})
        async with self._alone(name):
            self.store.add(volume)
            try:
                await self.files.hold(volume, "creation")
            except BaseException:
                await self._delete(volume)
                raise
            finally:
                self.files.release("creation")
        self.parts.events.publish("volume.created", name=name)
        return volume

    @staticmethod
    def _new(name: str, size: int, labels: Mapping[str, str]) -> Volume:
        return Volume(name, secrets.token_hex(6), time.time(), size, dict(labels))

    def every(self) -> list[Volume]:
        """Every volume, by name."""
        return self.store.all()

    def get(self, name: str) -> Volume:
        volume = self.store.get(name)
        if volume is None:
            raise NoSuchVolume(f"There is no volume '{name}'.")
        return volume

    def users(self, name: str) -> list[Instance]:
        """The instances that have the volume, running or not."""
        return [i for i in self.parts.store.all() if name in names_of(i.spec.mounts)]

    async def size(self, volume: Volume) -> int:
        """Bytes that it takes on the disk."""
        return await asyncio.to_thread(self.files.size, volume)

    def mountpoint(self, volume: Volume) -> str:
        """Where its files are on the host; those of a limited one only while it is used."""
        return str(self.files.data(volume))

    async def remove(self, name: str) -> None:
        """Delete a volume and all that is in it. Raises NoSuchVolume, VolumeInUse."""
        async with self._alone(name):
            volume = self.get(name)
            if users := self.users(name):
                names = ", ".join(instance.name for instance in users)
                raise VolumeInUse(f"The volume '{name}' is in use by {names}.")
            await self._delete(volume)

    async def _delete(self, volume: Volume) -> None:
        await self.files.remove(volume)
        self.store.delete(volume.name)
        self.parts.events.publish("volume.removed", name=volume.name)

    async def prune(
        self, *, everything: bool = False, dry: bool = False
    ) -> tuple[list[Volume], int]:
        """Remove volumes that no instance has, with `everything` those with a name as well:
        which ones, and the bytes that this frees. `dry`: only tell."""
        used = {name for i in self.parts.store.all() for name in names_of(i.spec.mounts)}
        found, total = [], 0
        for volume in removable(self.store.all(), used, everything=everything):
            size = await self.size(volume)
            try:
                if not dry:
                    await self.remove(volume.name)
            except (NoSuchVolume, VolumeInUse):
                continue  # meanwhile
            found.append(volume)
            total += size
        return found, total

    async def usage(self) -> Usage:
        """What volumes take on the disk."""
        volumes = self.store.all()
        used = [volume for volume in volumes if self.users(volume.name)]
        sizes = {volume.name: await self.size(volume) for volume in volumes}
        idle = sum(size for name, size in sizes.items() if name not in {v.name for v in used})
        return Usage("volumes", len(volumes), len(used), sum(sizes.values()), idle)

    # What instances need

    @staticmethod
    def named(spec: InstanceSpec, config: ImageConfig) -> InstanceSpec:
        """The request with a name for each of its volumes, the image's own ones among them."""
        if not config.volumes and not spec.mounts:
            return spec
        mounts = with_volumes(spec.mounts, config.volumes)
        return replace(
            spec,
            mounts=tuple(
                replace(mount, source=secrets.token_hex(32))
                if mount.type is MountType.VOLUME and not mount.source
                else mount
                for mount in mounts
            ),
        )

    async def attach(self, instance: Instance, image: Path) -> tuple[Mount, ...]:
        """Make what volumes the instance lacks, fill new ones from the image (shown at `image`),
        and give its mounts with the volumes' directories as sources."""
        mounts = []
        for mount in instance.spec.mounts:
            if mount.type is MountType.VOLUME:
                async with self._alone(mount.source):
                    mount = await self._held(instance, mount, image)
            mounts.append(mount)
        return tuple(mounts)

    async def disks(self, instance: Instance) -> list[tuple[Mount, Path]]:
        """The volumes of a VM, which are disks: each mount with its file, which is made where it
        is not there. Raises VolumeInUse, InvalidArgument where a volume is no disk."""
        found = []
        for mount in instance.spec.mounts:
            if mount.type is MountType.VOLUME:
                async with self._alone(mount.source):
                    found.append((mount, await self._disk(instance, mount.source)))
        return found

    async def _disk(self, instance: Instance, name: str) -> Path:
        volume = self.store.get(name)
        if volume is None:
            volume = replace(self._new(name, DEFAULT_DISK, {}), raw=True)
            self.store.add(volume)
        having = self.files.users(volume) - {instance.id}
        others = [i.name for i in self.users(name) if i.id in having]
        if others:  # it runs, or somebody is at its files
            raise VolumeInUse(
                f"The volume '{name}' is in use by {others[0]}: a disk has one VM at a time.",
                hint=f"Stop it first: sublet stop {others[0]}.",
            )
        if not volume.raw:
            volume = self._given_to_guests(volume)
        file = self.files.reserve(volume, instance.id) / "disk.img"
        if not file.exists():
            await self.parts.machines.disks.volume(file, volume.size)
        return file

    def _given_to_guests(self, volume: Volume) -> Volume:
        """From now on guests write its file system, and the host never mounts it again."""
        if not volume.size and not self.files.empty(volume):
            raise InvalidArgument(
                f"The volume '{volume.name}' is a directory with files in it; a VM needs a disk.",
                hint="Make another one for it, and copy: sublet volume create --size 10g NAME.",
            )
        volume = replace(volume, raw=True, size=volume.size or DEFAULT_DISK)
        self.store.update(volume)
        return volume

    async def _held(self, instance: Instance, mount: Mount, image: Path) -> Mount:
        volume = self.store.get(mount.source)
        if volume and volume.raw:
            raise InvalidArgument(
                f"The volume '{volume.name}' is the disk of VMs: what a guest's kernel has "
                "written there, this host does not mount.",
                hint="Run it with --vm, or use another volume.",
            )
        if volume is None:
            # Its own volumes must not be a way around an instance's limit.
            size = instance.spec.disk if is_anonymous(mount.source) else 0
            volume = self._new(mount.source, size, {})
            self.store.add(volume)
        data = await self.files.hold(volume, instance.id)
        if not mount.nocopy:
            await self.files.fill(volume, image, mount.destination)
        return replace(mount, source=str(data))

    def adopt(self, instance: Instance) -> None:
        """Note that a living instance uses its volumes."""
        for volume in self._of(instance):
            self.files.adopt(volume, instance.id)

    def _of(self, instance: Instance) -> list[Volume]:
        found = (self.store.get(name) for name in names_of(instance.spec.mounts))
        return [volume for volume in found if volume]

    async def remove_anonymous(self, instance: Instance, *, copies: bool = False) -> None:
        """Delete the volumes without a name that only this instance has; with `copies` those alone
        that were copied for it, a fork. Idempotent."""
        for volume in self._of(instance):
            if not (volume.goes_with(instance.id) if copies else volume.anonymous):
                continue
            async with self._alone(volume.name):
                if not [i for i in self.users(volume.name) if i.id != instance.id]:
                    await self._delete(volume)

    def _alone(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._locks.hold(f"volume {name}", "volume")

    def own(self, instance: Instance) -> list[Volume]:
        """The volumes without a name that only this instance has, of a VM all: what is copied
        with it."""
        if instance.spec.vm:  # they are its disks: what its memory says goes with them
            return self._of(instance)
        found = [volume for volume in self._of(instance) if volume.anonymous]
        return [volume for volume in found if len(self.users(volume.name)) == 1]

    def written(self, instance: Instance) -> list[Volume]:
        """The volumes that it can write to: what is backed up with it."""
        writable = [mount for mount in instance.spec.mounts if not mount.read_only]
        return [v for v in self._of(instance) if v.name in names_of(writable)]

    def twin(self, volume: Volume) -> Volume:
        """Another volume without a name, like this one, for a copy of it; not recorded yet."""
        twin = self._new(secrets.token_hex(32), volume.size, volume.labels)
        return replace(twin, raw=volume.raw)

    def leftovers(self) -> list[Leftover]:
        """Directories and mounts of volumes that belong to nobody."""
        return self.files.leftovers({volume.id for volume in self.store.all()})

    async def clean(self) -> None:
        """Remove what `leftovers` finds."""
        await self.files.clean({volume.id for volume in self.store.all()})
