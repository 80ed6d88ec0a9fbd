"""Routes on the catalogue of images that Sublet builds itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sublet.api.native.given import Given
from sublet.domain import catalog
from sublet.engine.catalog import Shown, listing, shown


def rendered(found: Shown) -> dict[str, Any]:
    """One entry of `catalog ls`."""
    versions = [
        {"tag": tag, "suite": suite, "here": suite in found.here}
        for suite, tag in found.entry.tags.items()
    ]
    return {
        "name": found.entry.name,
        "summary": found.entry.summary,
        "versions": versions,
        "service": found.offer.service,
        "port": found.offer.port or None,
        "url": found.offer.url,
        "environment": dict(found.offer.environment),
    }


routes = APIRouter(prefix="/v1/catalog", tags=["catalog"])
"""`/v1/catalog`."""


@routes.get("")
async def list_catalog(verbs: Given) -> list[dict[str, Any]]:
    return [rendered(found) for found in listing(verbs.images.all())]


@routes.get("/{name}")
async def show_entry(verbs: Given, name: str) -> dict[str, Any]:
    found = shown(catalog.entry(name), verbs.images.all())
    return {
        **rendered(found),
        "example_url": catalog.filled(found.offer, "ADDRESS"),
        "containerfile": found.text,
    }
