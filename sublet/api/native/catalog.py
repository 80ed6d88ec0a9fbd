"""Routes on the catalogue of images that Sublet builds itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sublet.domain import catalog
from sublet.engine.catalog import Shown, listing, shown
from sublet.engine.verbs import Verbs


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


def router(verbs: Verbs) -> APIRouter:
    """`/v1/catalog`."""
    routes = APIRouter(prefix="/v1/catalog", tags=["catalog"])

    @routes.get("")
    async def list_catalog() -> list[dict[str, Any]]:
        return [rendered(found) for found in listing(verbs.images.all())]

    @routes.get("/{name}")
    async def show_entry(name: str) -> dict[str, Any]:
        found = shown(catalog.entry(name), verbs.images.all())
        return {
            **rendered(found),
            "example_url": catalog.filled(found.offer, "ADDRESS"),
            "containerfile": found.text,
        }

    return routes
