"""An image of ours to a registry: one layer, made of its squashfs, and its OCI config."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import ProcessFailed, PushFailed
from sublet.domain.image import Image
from sublet.domain.progress import Report
from sublet.domain.reference import Reference
from sublet.domain.units import format_bytes
from sublet.drivers import run, squashfs
from sublet.drivers.registry import layout, trouble
from sublet.drivers.registry.access import Access
from sublet.drivers.registry.bases import partition
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import BuildStore
from sublet.drivers.store import files

TRANSFER = 6 * 3600


@dataclass(frozen=True, slots=True)
class Parcel:
    """The image in `file`, and where it goes."""

    image: Image
    file: Path
    target: Reference
    access: Access


@dataclass(frozen=True, slots=True)
class Pushed:
    """The digest of the manifest; the image's id, where we made its config."""

    digest: str
    identity: str = ""


async def push(
    store: BuildStore, parcel: Parcel, known: Sequence[Reference], place: Path, report: Report
) -> Pushed:
    """Push an image. What the registry knows it as already, one of `known`, gets another tag.

    Otherwise the same image makes the same blobs, and skopeo asks the registry for each
    before it sends it. `place` is an empty directory for what is temporary.
    Raises PushFailed, LoginFailed, UntrustedRegistry, DiskFull.
    """
    async with store.opened() as inside:
        sending = _Sending(store, inside, parcel, place / "digest", report)
        for source in known:
            with contextlib.suppress(ProcessFailed):  # it is gone from there, or was untagged
                report(f"Looking for {source}, which is the same image")
                return Pushed(await sending.copy(f"docker://{source.qualified}", again=True))
        report("Making a layer of the image")
        layer = await _layer(parcel.image, parcel.file, place)
        report(f"layer {layer.digest[7:19]}: {format_bytes(layer.path.stat().st_size)}")
        config = parcel.image.config.without_checksums()
        identity = await asyncio.to_thread(layout.write, place / "layout", layer, config)
        try:
            return Pushed(await sending.copy(f"oci:{place / 'layout'}"), identity)
        except ProcessFailed as error:
            registry, name = parcel.target.registry, str(parcel.target)
            raise trouble.of_push(error.message, registry, name, PushFailed) from error


@dataclass(frozen=True, slots=True)
class _Sending:
    """skopeo's way to the parcel's target; `said` is a file for the digest."""

    store: BuildStore
    inside: Inside
    parcel: Parcel
    said: Path
    report: Report

    async def copy(self, source: str, *, again: bool = False) -> str:
        """Copy `source` there; the manifest's digest. Raises ProcessFailed, DiskFull."""
        access = self.parcel.access
        flags = [*(access.flags("src-") if again else ()), *access.flags("dest-")]
        where = [source, f"docker://{self.parcel.target.qualified}"]
        argv = self.inside(["skopeo", "copy", "--digestfile", str(self.said), *flags, *where])
        environment = self.store.environment
        await run.run(argv, on_line=self.report, timeout=TRANSFER, env=environment)
        return self.said.read_text().strip()


async def _layer(image: Image, file: Path, place: Path) -> layout.Layer:
    source = await partition(image, file, place)
    reader, writer = os.pipe()
    with files.translated():
        packing = asyncio.ensure_future(asyncio.to_thread(layout.compress, reader, place / "layer"))
        try:
            await squashfs.write_tar(source, writer)
        finally:
            os.close(writer)
            await asyncio.shield(asyncio.wait([packing]))
        source.unlink()
        return await packing
