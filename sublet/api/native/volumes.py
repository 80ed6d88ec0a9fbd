"""Routes on volumes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from sublet.api.native import render
from sublet.api.native.given import Given
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


routes = APIRouter(prefix="/v1/volumes", tags=["volumes"])
"""`/v1/volumes`."""


async def rendered(verbs: Verbs, volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "created": render.time(volume.created),
        "anonymous": volume.anonymous,
        "limit": volume.size,
        "size": await verbs.volumes.size(volume),
        "labels": dict(volume.labels),
        "instances": [instance.name for instance in verbs.volumes.users(volume.name)],
        "mountpoint": verbs.volumes.mountpoint(volume),
    }


@routes.get("")
async def list_volumes(verbs: Given) -> list[dict[str, Any]]:
    return [await rendered(verbs, volume) for volume in verbs.volumes.every()]


@routes.post("", status_code=201)
async def create_volume(verbs: Given, body: NewVolume) -> dict[str, Any]:
    return await rendered(
        verbs, await verbs.volumes.create(body.name, size=body.size, labels=body.labels)
    )


@routes.post("/prune")
async def prune_volumes(verbs: Given, body: PruneVolumes) -> dict[str, Any]:
    found, size = await verbs.volumes.prune(everything=body.all, dry=body.dry_run)
    return {"volumes": [volume.name for volume in found], "size": size}


@routes.get("/{name}")
async def inspect_volume(verbs: Given, name: str) -> dict[str, Any]:
    return await rendered(verbs, verbs.volumes.get(name))


@routes.delete("/{name}", status_code=204)
async def remove_volume(verbs: Given, name: str) -> None:
    await verbs.volumes.remove(name)
