"""What a restore is to make of a backup: the instance, its image, its volumes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sublet.domain.backup import Manifest, Piece, published, restored
from sublet.domain.errors import NameInUse, NoSuchImage, SubletError
from sublet.domain.image import Image
from sublet.domain.machine import DEFAULT_DISK
from sublet.domain.progress import Report
from sublet.domain.size import check_disk
from sublet.domain.spec import InstanceSpec
from sublet.domain.volumes import Volume
from sublet.drivers.stage import Stage
from sublet.engine.images import Images
from sublet.engine.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore makes: of this, an instance that asks for `spec`, of an image; `volumes` by
    their places."""

    manifest: Manifest
    spec: InstanceSpec
    image: Image
    volumes: dict[str, Volume]
    stage: Stage

    @property
    def converts(self) -> bool:
        """Whether a container's files become the disks of a VM."""
        return self.spec.vm and not self.manifest.spec.vm

    def limit(self, piece: Piece) -> int:
        """Bytes of the disk that a part gets, 0: none."""
        volume = self.volumes.get(piece.place)
        if self.spec.vm:
            return (volume.size if volume else self.spec.disk) or DEFAULT_DISK
        return volume.size if volume else self.spec.disk


class RestorePlans:
    """Plans the restores of one daemon."""

    def __init__(self, lifecycle: Lifecycle, images: Images) -> None:
        self.lifecycle, self.parts = lifecycle, lifecycle.parts
        self._images = images

    async def plan(
        self, manifest: Manifest, stage: Stage, name: str, size: str, vm: bool, report: Report
    ) -> Plan:
        """What a restore makes. Raises NameInUse, NoSuchImage, InvalidArgument."""
        if any(row.name == name for row in self.parts.store.all()):
            raise NameInUse(
                f"The name '{name}' is in use.", hint="Restore it under another one: --as NAME."
            )
        image = await self._image(manifest, report)
        volumes = {
            piece.place: self._volume(piece.volume, vm=vm)
            for piece in manifest.pieces
            if piece.volume
        }
        names = {p.volume.name: volumes[p.place].name for p in manifest.pieces if p.volume}
        spec = restored(manifest, name, vm=vm, volumes=names)
        rows = self.parts.store.all()
        taken = {(port.host_port, port.protocol) for row in rows for port in row.spec.ports}
        spec = replace(spec, ports=published(spec.ports, taken))
        if size:
            wanted = self.parts.config.size_of(size)
            spec = replace(spec, cpus=wanted.cpus, memory=wanted.memory)
        return Plan(manifest, spec, image, volumes, stage)

    def _volume(self, old: Volume, *, vm: bool) -> Volume:
        """The volume that takes the place of one: under its name, where that is free."""
        new = self.lifecycle.volumes.twin(old)
        if not old.anonymous and self.parts.volume_store.get(old.name) is None:
            new = replace(new, name=old.name)
        size = check_disk(new.size) if new.size else 0
        return replace(new, raw=vm, size=(size or DEFAULT_DISK) if vm else size)

    async def _image(self, manifest: Manifest, report: Report) -> Image:
        """The image of the instance, fetched where it is not here. Raises NoSuchImage."""
        if here := self._images.local(manifest.digest):
            return here
        try:
            image = await self._images.ensure(manifest.image, report=report)
        except SubletError as error:
            raise NoSuchImage(
                f"The image {manifest.image} of the backup is not on this host and cannot be "
                f"fetched: {error.message}",
                hint="Bring it here first: `sublet pull`, `sublet import`, or `sublet build`.",
            ) from error
        if image.config.disk and image.digest != manifest.digest:
            raise NoSuchImage(
                f"{manifest.image} is another disk here than the one that was backed up, whose "
                "changes alone are in the backup.",
                hint=f"Import the one with the digest {manifest.digest}.",
            )
        report(f"{manifest.image} is another build here than the one that was backed up")
        return image
