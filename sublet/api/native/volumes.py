"""Routes on volumes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from sublet.api.native import render
from sublet.api.native.strict import Body
from sublet.domain.volumes import Volume
from sublet.engine.verbs import Verbs


class NewVolume(Body):
    """`size` in bytes, 0: no limit of its own."""

    name: str = ""
    size: int = 0
    labels: dict[str, str] = Field(default_factory=dict)


class PruneVolumes(Body):
    """`all`: those with a name as well; `dry_run`: only tell."""

    all: bool = False
    dry_run: bool = False


def router(verbs: Verbs) -> APIRouter:
    """`/v1/volumes`."""
    routes = APIRouter(prefix="/v1/volumes", tags=["volumes"])
    volumes = verbs.volumes

    async def rendered(volume: Volume) -> dict[str, Any]:
        return {
            "name": volume.name,
            "created": render.time(volume.created),
            "anonymous": volume.anonymous,
            "limit": volume.size,
            "size": await volumes.size(volume),
            "labels": dict(volume.labels),
            "instances": [instance.name for instance in volumes.users(volume.name)],
            "mountpoint": volumes.mountpoint(volume),
        }

    @routes.get("")
    async def list_volumes() -> list[dict[str, Any]]:
        return [await rendered(volume) for volume in volumes.every()]

    @routes.post("", status_code=201)
    async def create_volume(body: NewVolume) -> dict[str, Any]:
        return await rendered(await volumes.create(body.name, size=body.size, labels=body.labels))

    @routes.post("/prune")
    async def prune_volumes(body: PruneVolumes) -> dict[str, Any]:
        found, size = await volumes.prune(everything=body.all, dry=body.dry_run)
        return {"volumes": [volume.name for volume in found], "size": size}

    @routes.get("/{name}")
    async def inspect_volume(name: str) -> dict[str, Any]:
        return await rendered(volumes.get(name))

    @routes.delete("/{name}", status_code=204)
    async def remove_volume(name: str) -> Response:
        await volumes.remove(name)
        return Response(status_code=204)

    return routes
