"""Routes on warm pools."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.strict import Body, only_known
from sublet.domain.pools import Pool
from sublet.domain.spec import InstanceSpec
from sublet.engine.verbs import Verbs


class NewPool(Body):
    """`size` sandboxes as `spec` asks for are kept ready; without a `name`, in the pool that has
    such ones already, or in one that is named after the image."""

    size: int
    spec: InstanceSpec
    name: str = ""


routes = APIRouter(prefix="/v1/pools", tags=["pools"])
"""`/v1/pools`."""


def rendered(verbs: Verbs, row: Pool) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "image": row.spec.image,
        "isolation": row.spec.isolation.value,
        "instance_size": str(row.spec.size),
        "egress": list(row.spec.egress) if row.spec.egress else None,
        "size": row.size,
        "ready": verbs.pools.ready(row),
        "trouble": verbs.pools.trouble(row) or None,
        "created": render.time(row.created),
    }


@routes.get("")
async def list_pools(verbs: Given) -> list[dict[str, Any]]:
    return [rendered(verbs, row) for row in verbs.pools.store.every()]


@routes.post("", dependencies=[Depends(only_known(NewPool))])
async def set_pool(verbs: Given, body: NewPool) -> dict[str, Any]:
    return rendered(verbs, verbs.pools.put(body.name, body.size, body.spec))


@routes.delete("/{name}", status_code=204)
async def remove_pool(verbs: Given, name: str) -> None:
    await verbs.pools.remove(name)
