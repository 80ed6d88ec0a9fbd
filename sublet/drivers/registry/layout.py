"""An image of ours as an OCI layout with one layer, for the private store.

Source: OCI image specification 1.1, `image-layout.md`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sublet.domain.image import ImageConfig

LEVEL = 5
"""Of gzip's nine: 170 MB take 4 s on one core; the highest takes four times as long."""
_TYPE = "application/vnd.oci.image."


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the file `path`: a tar archive, by gzip if `compressed`. `diff_id` is the
    digest of the archive itself."""

    path: Path
    digest: str
    diff_id: str
    compressed: bool = False

    @property
    def media_type(self) -> str:
        return "layer.v1.tar+gzip" if self.compressed else "layer.v1.tar"


def plain(path: Path) -> Layer:
    """The layer that an uncompressed tar archive is."""
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return Layer(path, digest, digest)


def compress(source: int, target: Path) -> Layer:
    """The layer that the tar archive read from the descriptor `source`, which is closed, makes
    in the file `target`: the same bytes for the same archive."""
    archive = hashlib.sha256()
    with (
        os.fdopen(source, "rb") as reader,
        target.open("wb") as opened,
        gzip.GzipFile("", "wb", LEVEL, opened, mtime=0) as file,
    ):
        while chunk := reader.read(1 << 20):
            archive.update(chunk)
            file.write(chunk)
    whole = plain(target)
    return Layer(target, whole.digest, f"sha256:{archive.hexdigest()}", compressed=True)


def write(directory: Path, layer: Layer, config: ImageConfig) -> str:
    """Complete `directory`, into which the layer is moved; the image's id."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    size = layer.path.stat().st_size
    layer.path.rename(blobs / layer.digest.partition(":")[2])
    outer = json.loads(config.to_json())
    outer["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id]}
    outer["created"] = outer["created"] or "1970-01-01T00:00:00Z"
    outer["history"] = one_layer(outer.get("history"), outer["created"])
    config_entry = _add(blobs, outer, "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}manifest.v1+json",
        "config": config_entry,
        "layers": [_entry(layer.media_type, layer.digest, size)],
    }
    index = {"schemaVersion": 2, "manifests": [_add(blobs, manifest, "manifest.v1+json")]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(config_entry["digest"]).partition(":")[2]


def one_layer(history: list[dict[str, Any]] | None, created: str) -> list[dict[str, Any]]:
    """The history with its last step as the only one that made a layer: all that the steps
    before it made lies in that layer too, and readers count layers by the history."""
    steps = history or [{"created": created, "created_by": "sublet"}]
    last = {key: value for key, value in steps[-1].items() if key != "empty_layer"}
    return [{**step, "empty_layer": True} for step in steps[:-1]] + [last]


def _add(blobs: Path, data: dict[str, Any], kind: str) -> dict[str, Any]:
    text = json.dumps(data, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()
    (blobs / digest).write_bytes(text)
    return _entry(kind, f"sha256:{digest}", len(text))


def _entry(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": _TYPE + kind, "digest": digest, "size": size}
