"""Manifests as registries and OCI layouts give them: choosing a platform, checking digests.

skopeo 1.9 trusts the digests in a manifest to be well formed (CVE-2024-3727), so they
are checked here, before it sees them, and what it copies is named by digest.
Source: OCI image specification 1.1, `manifest.md`, `image-index.md`, `descriptor.md`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sublet.domain.errors import CorruptImage, NoSuchImage

MAX_MANIFEST = 4 << 20
MAX_LAYERS, MAX_SIZE = 500, 1 << 44
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse(data: bytes) -> dict[str, Any]:
    """The manifest or index in `data`; CorruptImage where it is none."""
    try:
        if len(data) > MAX_MANIFEST:
            raise ValueError("it is too large")
        manifest = json.loads(data)
        if not isinstance(manifest, dict) or manifest.get("schemaVersion") != 2:
            raise ValueError("it is not of schema version 2")
    except (ValueError, RecursionError) as error:
        raise CorruptImage(f"The image's manifest cannot be read: {error}.") from error
    return manifest


def digest_of(data: bytes) -> str:
    """The digest by which `data` is fetched."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_index(manifest: Mapping[str, Any]) -> bool:
    """Whether it lists manifests, one per platform."""
    return "manifests" in manifest


def choose(index: Mapping[str, Any], architecture: str) -> str:
    """The digest of the index's manifest for Linux on `architecture`.

    A single manifest without a platform fits every host. Raises NoSuchImage.
    """
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise CorruptImage("The image's index is malformed.")
    platforms = []
    for item in entries:
        platform = item.get("platform")
        if not isinstance(platform, dict):
            if len(entries) == 1:
                return checked(item.get("digest"))
            continue
        name = f"{platform.get('os')}/{platform.get('architecture')}"
        if name == f"linux/{architecture}":
            return checked(item.get("digest"))
        platforms.append(name)
    raise NoSuchImage(
        f"The image is not made for linux/{architecture}.",
        hint=f"It is made for {', '.join(sorted(set(platforms))) or 'no platform'}.",
    )


@dataclass(frozen=True, slots=True)
class Blob:
    """What a manifest says of a blob: digest, bytes, and where it is the image's config."""

    digest: str
    size: int
    is_config: bool = False


def blobs(manifest: Mapping[str, Any]) -> list[Blob]:
    """A manifest's config, then its layers, each with a well-formed digest and size."""
    layers, config = manifest.get("layers"), manifest.get("config")
    if not isinstance(layers, list) or not isinstance(config, dict):
        raise CorruptImage("The image's manifest is malformed.")
    if len(layers) > MAX_LAYERS:
        raise CorruptImage(f"The image has {len(layers)} layers; {MAX_LAYERS} are the most.")
    found = [_blob(item) for item in layers]
    return [replace(_blob(config), is_config=True), *found]


def _blob(item: object) -> Blob:
    if not isinstance(item, dict):
        raise CorruptImage("The image's manifest is malformed.")
    digest, size = checked(item.get("digest")), item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < MAX_SIZE:
        raise CorruptImage(f"The image's manifest gives {digest[:19]} the size {size!r:.40}.")
    return Blob(digest, size)


def checked(digest: object) -> str:
    """`digest`, if it is one; CorruptImage where it could be a path or worse."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise CorruptImage("The image's manifest holds a malformed digest.")
    return digest
