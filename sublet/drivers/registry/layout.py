"""An image of ours as an OCI layout with one layer, for the private store.

Source: OCI image specification 1.1, `image-layout.md`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sublet.domain.image import ImageConfig

_TYPE = "application/vnd.oci.image."


def write(directory: Path, layer: Path, config: ImageConfig) -> str:
    """Complete `directory`, into which the tar `layer` is moved; the image's id."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with layer.open("rb") as file:
        layer_digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / layer_digest)
    outer = json.loads(config.to_json())
    outer["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]}
    outer["created"] = outer["created"] or "1970-01-01T00:00:00Z"
    outer["history"] = one_layer(outer.get("history"), outer["created"])
    config_entry = _add(blobs, outer, "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "config": config_entry,
        "layers": [_entry("layer.v1.tar", f"sha256:{layer_digest}", size)],
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
