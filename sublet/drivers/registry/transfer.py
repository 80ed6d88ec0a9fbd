"""An image's blobs from its registry into an OCI layout, with progress."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from sublet.domain.errors import DiskFull
from sublet.domain.progress import Report
from sublet.domain.units import format_bytes
from sublet.drivers.registry.blobs import Source, size_of
from sublet.drivers.registry.downloads import Downloads
from sublet.drivers.registry.manifest import Blob
from sublet.drivers.registry.resolve import Found

AT_ONCE = 3
LOOK, STEP, SILENCE = 0.5, 0.05, 5.0
"""Seconds between looks at a download; it is told of after a twentieth of it, or so long."""


@dataclass(slots=True)
class Progress:
    """How far the downloads of one image are: lines for whoever waits."""

    report: Report
    total: int
    _done: dict[str, int] = field(default_factory=dict)
    _told: dict[str, tuple[int, float]] = field(default_factory=dict)

    def begin(self, blob: Blob, have: int) -> None:
        """Tell what is here already."""
        self._done[blob.digest] = have
        self._told[blob.digest] = (have, time.monotonic())
        if have:
            self.report(f"{_name(blob)}: {format_bytes(have)} of {self._size(blob)} are here")

    def at(self, blob: Blob, done: int, *, last: bool = False) -> None:
        """Tell how far a blob is, unless that was just told."""
        self._done[blob.digest] = done
        told, then = self._told[blob.digest]
        now = time.monotonic()
        far = done - told >= STEP * blob.size
        if done > told and (last or far or now - then >= SILENCE):
            self._told[blob.digest] = (done, now)
            whole = format_bytes(sum(self._done.values()))
            self.report(
                f"{_name(blob)}: {format_bytes(done)} of {self._size(blob)}"
                f" (in all {whole} of {format_bytes(self.total)})"
            )

    @staticmethod
    def _size(blob: Blob) -> str:
        return format_bytes(blob.size)


def _name(blob: Blob) -> str:
    what = "config" if blob.is_config else "layer"
    return f"{what} {blob.digest.partition(':')[2][:12]}"


async def fetch(found: Found, source: Source, downloads: Downloads, report: Report) -> None:
    """Bring every blob of the image, each verified, into `downloads`, whose caller uses them.

    Raises PullFailed, CorruptImage, DiskFull: what is complete until then stays.
    """
    blobs = {blob.digest: blob for blob in found.blobs}.values()
    missing = sum(blob.size for blob in blobs if not downloads.blob(blob.digest).exists())
    free = shutil.disk_usage(downloads.directory).free
    if missing > free:
        raise DiskFull(
            f"The image's layers take {format_bytes(missing)}; {format_bytes(free)} are free."
        )
    progress = Progress(report, sum(blob.size for blob in blobs))
    slots = asyncio.Semaphore(AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            for blob in blobs:
                group.create_task(_one(blob, source, downloads, progress, slots))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _one(
    blob: Blob,
    source: Source,
    downloads: Downloads,
    progress: Progress,
    slots: asyncio.Semaphore,
) -> None:
    part = downloads.part(blob.digest)
    async with slots, downloads.alone(blob.digest):
        if downloads.blob(blob.digest).exists():
            progress.begin(blob, blob.size)
            return
        progress.begin(blob, size_of(part))
        part.touch(0o600)
        loading = asyncio.ensure_future(source.fetch(blob, part))
        try:
            while not loading.done():
                await asyncio.wait([loading], timeout=LOOK)
                progress.at(blob, min(size_of(part), blob.size))
            await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        await asyncio.to_thread(downloads.keep, blob.digest)
        progress.at(blob, blob.size, last=True)


def write_layout(directory: Path, found: Found, downloads: Downloads) -> None:
    """An OCI layout of the fetched image in `directory`: links to its blobs."""
    for blob in found.blobs:
        source = downloads.blob(blob.digest)
        target = directory / "blobs" / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(source, target)
    digest = found.digests[-1]
    place = directory / "blobs" / "sha256" / digest.partition(":")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(found.data)
    entry = {"digest": digest, "size": len(found.data)}
    entry["mediaType"] = _media_type(found.data)
    index = {"schemaVersion": 2, "manifests": [entry]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _media_type(data: bytes) -> str:
    """What the manifest says it is; an OCI manifest need not say."""
    found = json.loads(data).get("mediaType")
    return found if isinstance(found, str) else "application/vnd.oci.image.manifest.v1+json"
