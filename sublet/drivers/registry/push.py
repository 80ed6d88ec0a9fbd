"""An image of ours to a registry: one layer, made of its squashfs, and its OCI config."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import ProcessFailed, PushFailed
from sublet.domain.image import Image
from sublet.domain.reference import Reference
from sublet.domain.units import format_bytes
from sublet.drivers import run, squashfs
from sublet.drivers.registry import layout, trouble
from sublet.drivers.registry.access import Access
from sublet.drivers.registry.bases import partition
from sublet.drivers.registry.buildah import without_checksums
from sublet.drivers.registry.store import BuildStore
from sublet.drivers.store import files

Report = Callable[[str], None]
TRANSFER = 6 * 3600


@dataclass(frozen=True, slots=True)
class Parcel:
    """The image in `file`, and where it goes."""

    image: Image
    file: Path
    target: Reference
    access: Access


async def push(store: BuildStore, parcel: Parcel, place: Path, report: Report) -> tuple[str, str]:
    """Push an image: the digest of the manifest, and the image's id.

    The same image makes the same blobs, and skopeo asks the registry for each before it
    sends it. `place` is an empty directory for what is temporary.
    Raises PushFailed, LoginFailed, UntrustedRegistry, DiskFull.
    """
    report("Making a layer of the image")
    image, target, access = parcel.image, parcel.target, parcel.access
    layer = await _layer(image, parcel.file, place)
    report(f"layer {layer.digest[7:19]}: {format_bytes(layer.path.stat().st_size)}")
    directory, said = place / "layout", place / "digest"
    identity = await asyncio.to_thread(
        layout.write, directory, layer, without_checksums(image.config)
    )
    where = ["--digestfile", str(said), *access.flags("dest-")]
    argv = ["skopeo", "copy", *where, f"oci:{directory}", f"docker://{target.qualified}"]
    try:
        async with store.opened() as inside:
            await run.run(inside(argv), on_line=report, timeout=TRANSFER, env=store.environment)
    except ProcessFailed as error:
        raise trouble.of_push(error.message, target.registry, str(target), PushFailed) from error
    return said.read_text().strip(), identity


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
