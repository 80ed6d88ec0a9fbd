"""Packing: whatever holds a root file system becomes one file of ours, on the shelf or
where the user wants it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from sublet.domain.disks import LABEL_DISK, Disk
from sublet.domain.image import Image, ImageConfig, Step
from sublet.domain.progress import Report
from sublet.domain.units import format_bytes, rfc3339
from sublet.drivers import diskimage, squashfs
from sublet.drivers.descriptors import sync
from sublet.drivers.registry import buildah, debian, skopeo
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import BuildStore
from sublet.drivers.store import files
from sublet.engine.shelf import Shelf, image_of
from sublet.image import sif

Taker = Callable[[BinaryIO, Path, tuple[str, ...], bool, Report], Awaitable[Image]]

SETTLED = 0.05
"""Seconds after its last change from when on a file's mtime tells that it has changed again:
the kernel's clock for mtimes ticks every 4 to 10 ms. Until then an import waits."""


class Packing:
    """What turns directories, archives, layers and foreign files into images."""

    def __init__(self, shelf: Shelf, builds: BuildStore) -> None:
        self._shelf, self._store, self.files = shelf, shelf.store, shelf.files
        self._builds = builds

    async def take(self, path: Path, names: tuple[str, ...], trust: bool, report: Report) -> Image:
        """Take the user's SIF file, disk, or tar archive of a root file system, into the store.

        A file that is known by its inode, size and mtime is not read again.
        Raises InvalidArgument, CorruptImage, DiskFull.
        """
        with files.open_regular(path) as source:
            before = os.fstat(source.fileno())
            async with self._shelf.alone(f"import {before.st_dev} {before.st_ino}"):
                known = self._store.hash_of(before)
                if known and (image := self._store.get(known)):
                    return self._shelf.named(image, names)
                with self.files.temporary() as place:
                    image = await self._taker(source)(
                        source, place / "image.sif", names, trust, report
                    )
                age = time.time() - before.st_mtime
                if 0 <= age < SETTLED:
                    await asyncio.sleep(SETTLED - age)
                after = os.fstat(source.fileno())
            if after.st_mtime_ns == before.st_mtime_ns:
                self._store.remember_hash(after, image.digest)
            return image

    def _taker(self, source: BinaryIO) -> Taker:
        """What takes the file in: its content says what it is, not its name."""
        if sif.is_sif(source):
            return self._take_sif
        return self._take_disk if diskimage.is_disk(source) else self._take_tar

    async def _take_disk(
        self, source: BinaryIO, file: Path, names: tuple[str, ...], _trust: bool, report: Report
    ) -> Image:
        disk = file.with_name("disk")
        await diskimage.copy(source, disk)
        size = diskimage.virtual_size(disk)
        report(f"Packing the disk of {format_bytes(size)} into one file")
        config = _disk_config(size, os.fstat(source.fileno()).st_mtime)
        await diskimage.repack(disk, file, offset=sif.payload_offset(config))
        return await self._shelf.keep(file, config, names)

    async def _take_tar(
        self, source: BinaryIO, file: Path, names: tuple[str, ...], _trust: bool, report: Report
    ) -> Image:
        report("Packing the archive into one file")
        config = _plain_config(os.fstat(source.fileno()).st_mtime, "sublet import")
        await squashfs.pack_tar(source, file, offset=sif.payload_offset(config))
        return await self._shelf.keep(file, config, names)

    async def _take_sif(
        self, source: BinaryIO, file: Path, names: tuple[str, ...], trust: bool, report: Report
    ) -> Image:
        """Copy the file, verify the copy, and pack it again if it is foreign."""
        await asyncio.to_thread(files.copy_to, source, file)
        (info, digest), _ = await asyncio.gather(  # both take as long
            asyncio.to_thread(_verify, file), asyncio.to_thread(sync, file)
        )
        origin = f"sif {digest}"
        for image in (self._store.get(digest), self._store.packed_from(origin)):
            if image:
                return self._shelf.named(image, names)
        if trust or self._store.is_packed(digest):
            return self._shelf.record(file, sif.Finished(digest, info), names)
        report("Packing the image again, as it was not packed on this host")
        partition = file.with_name("partition")
        with file.open("rb") as reader:
            await asyncio.to_thread(files.copy_to, reader, partition, info.offset, info.length)
        file.unlink()
        partition.chmod(0o444)
        config, repack = info.config, squashfs.repack
        if config.disk:
            disk = Disk(diskimage.virtual_size(partition))
            config, repack = config.with_labels({LABEL_DISK: disk.label()}), diskimage.repack
        await repack(partition, file, offset=sif.payload_offset(config))
        return await self._shelf.keep(file, config, names, origin)

    async def pack(self, path: Path, output: Path, report: Report) -> Image:
        """Pack a directory, a root file system or an OCI layout, into the file `output`."""
        with self.files.temporary() as place:
            file = place / "image.sif"
            if skopeo.is_layout(path):
                config = await self._pack_layout(path, file, report)
            else:
                report(f"Packing {path}")
                config = _plain_config(path.stat().st_mtime, "sublet pack")
                await self._pack_tree(path, file, config)
            finished = await asyncio.to_thread(self.files.finish, file, config)
            await asyncio.to_thread(files.publish, file, output)
            self._store.mark_packed(finished.digest)
            return image_of(finished)

    async def pack_output(
        self,
        producer: squashfs.Source,
        config: ImageConfig,
        names: tuple[str, ...],
        output: Path | None,
        report: Report,
    ) -> Image:
        """Pack the tar archive that a program writes: onto the shelf, unless it is only for the
        nameless file `output`."""
        report("Packing the files into one")
        with self.files.temporary() as place:
            file = place / "image.sif"
            await squashfs.pack_output(producer, file, offset=sif.payload_offset(config))
            if output is None:
                return await self._shelf.keep(file, config, names)
            finished = await asyncio.to_thread(self.files.finish, file, config)
            await asyncio.to_thread(files.publish, file, output)
            self._store.mark_packed(finished.digest)
            return self._shelf.record(file, finished, names) if names else image_of(finished)

    async def _pack_layout(self, layout: Path, file: Path, report: Report) -> ImageConfig:
        async with self._builds.opened() as inside:
            identity = await skopeo.load_layout(self._builds, inside, layout, report)
            config = await buildah.config_of(self._builds, inside, identity)
            async with buildah.mounted(self._builds, inside, identity) as tree:
                report("Packing the image into one file")
                await self._pack_tree(tree, file, config, inside)
            await self._builds.remove_image(inside, skopeo.name_of(identity))
            return config

    async def flatten(
        self, inside: Inside, identity: str, names: tuple[str, ...], report: Report
    ) -> Image:
        """The image with this id in the build store as a file of ours, packed once."""
        source = f"store {identity}"
        async with self._shelf.alone(source):
            if image := self._store.packed_from(source):
                return self._shelf.named(image, names)
            config = await buildah.config_of(self._builds, inside, identity)
            with self.files.temporary() as place:
                file = place / "image.sif"
                async with buildah.mounted(self._builds, inside, identity) as tree:
                    report("Packing the image into one file")
                    await self._pack_tree(tree, file, config, inside)
                return await self._shelf.keep(file, config, names, source)

    @staticmethod
    async def _pack_tree(
        tree: Path, file: Path, config: ImageConfig, inside: Inside | None = None
    ) -> None:
        offset, created = sif.payload_offset(config), sif.epoch(config.created)
        await squashfs.pack_directory(
            tree, file, offset=offset, created=created, inside=inside or list
        )


def _verify(file: Path) -> tuple[sif.Info, str]:
    with file.open("rb") as opened:
        return sif.verify(opened)


def _plain_config(mtime: float, made_by: str) -> ImageConfig:
    """The config of a root file system that comes without one."""
    created = rfc3339(int(os.environ.get("SOURCE_DATE_EPOCH") or mtime))
    return ImageConfig(
        architecture=skopeo.architecture(),
        created=created,
        cmd=("/bin/sh",),
        env=(debian.PATH,),
        history=(Step(created, made_by),),
    )


def _disk_config(size: int, mtime: float) -> ImageConfig:
    """The config of a disk of `size` bytes, whose own init is what runs."""
    config = replace(_plain_config(mtime, "sublet import"), cmd=("/sbin/init",))
    return config.with_labels({LABEL_DISK: Disk(size).label()})
