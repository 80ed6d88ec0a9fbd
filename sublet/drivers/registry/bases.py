"""Images of ours as bases of builds: put into the private store once per digest."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sublet.domain.errors import ImageNeedsVM
from sublet.domain.image import Image
from sublet.drivers import run, squashfs
from sublet.drivers.registry import layout
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import BuildStore
from sublet.drivers.store import files


def base_name(digest: str) -> str:
    """What the image of this digest is called in the private store."""
    return f"localhost/sublet-base:{digest.removeprefix('sha256:')}"


async def base_id(store: BuildStore, inside: Inside, image: Image, file: Path, place: Path) -> str:
    """The id in the store of the image whose file is `file`; it is put there if need be.

    It becomes a single layer. `place` is an empty directory for what is temporary.
    Raises DiskFull.
    """
    name = base_name(image.digest)
    if identity := await store.image_id(inside, name):
        return identity
    archive, directory = place / "layer", place / "layout"
    with archive.open("wb") as sink:
        await squashfs.write_tar(await partition(image, file, place), sink.fileno())
    with files.translated():
        layer = await asyncio.to_thread(layout.plain, archive)
        await asyncio.to_thread(layout.write, directory, layer, image.config.without_checksums())
    argv = inside(["skopeo", "copy", "--quiet", f"oci:{directory}", store.reference(name)])
    await run.run(argv, env=store.environment)
    return await store.image_id(inside, name) or ""


async def partition(image: Image, file: Path, place: Path) -> Path:
    """The image's squashfs, readable by all, in the directory `place`.

    Raises DiskFull, ImageNeedsVM for a disk, which is no layer.
    """
    if image.config.disk:
        raise ImageNeedsVM(
            "The image is a disk, which cannot be sent to a registry or built upon.",
            hint="`sublet pack IMAGE -o FILE.sif` writes it to a file, which `import` takes in.",
        )
    target = place / "partition"
    with file.open("rb") as reader:
        await asyncio.to_thread(files.copy_to, reader, target, image.offset, image.length)
    target.chmod(0o444)
    return target
