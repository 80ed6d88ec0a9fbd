"""OCI layouts, through skopeo, into the private store."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sublet.domain.errors import CorruptImage, InvalidArgument, ProcessFailed
from sublet.domain.progress import Report
from sublet.drivers import run
from sublet.drivers.registry import manifest, trouble
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import TEMPORARY, BuildStore
from sublet.drivers.store import files

TRANSFER = 3600
_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This host's architecture, as images name it."""
    machine = os.uname().machine
    return _NAMES.get(machine, machine)


async def load_layout(store: BuildStore, inside: Inside, layout: Path, report: Report) -> str:
    """Copy the one image of an OCI layout directory into the store; its id there.

    Raises CorruptImage for what is no sound layout.
    """
    try:
        index = manifest.parse(_read(layout / "index.json"))
        entries = [item for item in index.get("manifests") or () if isinstance(item, dict)]
        digest = manifest.choose({"manifests": entries}, architecture())
        found = manifest.parse(_blob(layout, digest))
        if manifest.is_index(found):
            found = manifest.parse(_blob(layout, manifest.choose(found, architecture())))
        config = manifest.blobs(found)[0].digest
    except InvalidArgument as error:
        raise CorruptImage(f"{layout} is no complete OCI layout: {error.message}") from error
    # skopeo splits its argument at colons, which a path may hold.
    with tempfile.TemporaryDirectory(dir=store.temporary) as place:
        link = TEMPORARY / Path(place).name / "layout"
        (Path(place) / "layout").symlink_to(layout.absolute())
        return await copy(store, inside, link, config, report)


def _read(path: Path) -> bytes:
    """A small file of a layout's; a FIFO in its place is not waited for."""
    with files.open_regular(path) as file:
        return file.read(manifest.MAX_MANIFEST + 1)


def _blob(layout: Path, digest: str) -> bytes:
    algorithm, _, value = digest.partition(":")
    data = _read(layout / "blobs" / algorithm / value)
    if algorithm == "sha256" and manifest.digest_of(data) != digest:
        raise CorruptImage(f"The OCI layout's blob {digest[:19]} does not have its digest.")
    return data


async def copy(store: BuildStore, inside: Inside, layout: Path, config: str, report: Report) -> str:
    """Copy the image of a layout, as the room sees it, into the store, under the name that
    `name_of` gives for its id; the id, which is the digest of its config.

    Every blob is checked against its digest. Raises CorruptImage, DiskFull.
    """
    identity = config.partition(":")[2]
    target = store.reference(name_of(identity))
    argv = inside(["skopeo", "copy", f"oci:{layout}", target])
    try:
        await run.run(argv, on_line=report, timeout=TRANSFER, env=store.environment)
    except ProcessFailed as error:
        why = trouble.last(error.message)
        raise CorruptImage(f"The image's layers cannot be unpacked: {why}") from error
    return identity


def name_of(identity: str) -> str:
    """The name of the image with this id in the private store."""
    return f"localhost/sublet-image:{identity}"


def is_layout(path: Path) -> bool:
    """Whether the directory is an OCI layout."""
    return (path / "oci-layout").is_file() and (path / "index.json").is_file()
