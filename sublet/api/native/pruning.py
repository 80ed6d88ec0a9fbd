"""Routes on the room that things take, and on getting it back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from sublet.api.native.given import Given
from sublet.api.native.strict import Body
from sublet.engine import pruning


class PruneInstances(Body):
    """`dry_run`: only tell what would go."""

    filters: tuple[str, ...] = ()
    dry_run: bool = False


class PruneSystem(PruneInstances):
    """`all`: images that have a name too. `volumes`: those without one."""

    all: bool = False
    volumes: bool = False


routes = APIRouter(prefix="/v1", tags=["system"])
"""`/v1/usage`, `/v1/prune`, `/v1/instances/prune`."""


@routes.get("/usage")
async def usage(verbs: Given) -> list[dict[str, Any]]:
    return [asdict(row) for row in await pruning.usage(verbs)]


@routes.post("/prune")
async def prune(verbs: Given, body: PruneSystem) -> list[dict[str, Any]]:
    freed = await pruning.system(
        verbs,
        body.filters,
        everything=body.all,
        volumes=body.volumes,
        dry=body.dry_run,
    )
    return [asdict(each) for each in freed]


@routes.post("/instances/prune")
async def prune_instances(verbs: Given, body: PruneInstances) -> list[dict[str, Any]]:
    freed = await pruning.instances(verbs.instances, body.filters, dry=body.dry_run)
    return [asdict(freed)]
