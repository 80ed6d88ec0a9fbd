"""Routes on snapshots, forks and rollbacks. What copies is an operation, streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond
from sublet.api.native.strict import Body
from sublet.domain.ports import Port
from sublet.domain.progress import Report
from sublet.domain.snapshots import Snapshot
from sublet.engine.verbs import Verbs


class NewSnapshot(Body):
    """`memory`: that of a running VM, too."""

    name: str = ""
    memory: bool = False


class Fork(Body):
    """`source`: an instance or a snapshot; with `of`, a snapshot of that instance. `ports`
    null: the source's, on other host ports. `lease` null: the source's, empty: none."""

    source: str
    of: str = ""
    name: str = ""
    ports: list[Port] | None = None
    lease: str | None = None


class Rollback(Body):
    snapshot: str


def copying(report: Report, source: str) -> Callable[[], None]:
    """Tells that the copying has begun."""
    return lambda: report(f"Copying the files of {source}")


routes = APIRouter(prefix="/v1", tags=["snapshots"])
"""`/v1/snapshots`, `/v1/fork`, and `/v1/instances/{name}/snapshots` and `/rollback`."""


async def rendered(verbs: Verbs, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "instance": snapshot.instance,
        "instance_name": verbs.instances.get(snapshot.instance).name,
        "created": render.time(snapshot.created),
        "size": await asyncio.to_thread(verbs.snapshots.size, snapshot),
        "volumes": list(snapshot.volumes),
        "memory": snapshot.memory,
    }


@routes.get("/snapshots")
async def list_snapshots(verbs: Given, instance: str = "") -> list[dict[str, Any]]:
    return [await rendered(verbs, snapshot) for snapshot in verbs.snapshots.every(instance)]


@routes.get("/snapshots/{name}")
async def inspect_snapshot(verbs: Given, name: str) -> dict[str, Any]:
    return await rendered(verbs, verbs.snapshots.get(name))


@routes.delete("/snapshots/{name}", status_code=204)
async def remove_snapshot(verbs: Given, name: str) -> None:
    await verbs.snapshots.remove(name)


@routes.post("/instances/{name}/snapshots")
async def take_snapshot(
    verbs: Given, name: str, body: NewSnapshot, request: Request
) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        begun = copying(report, name)
        taken = await verbs.snapshots.take(name, body.name, memory=body.memory, begun=begun)
        return await rendered(verbs, taken)

    return respond(request, verbs.operations, "snapshot", work)


@routes.post("/fork")
async def fork(verbs: Given, body: Fork, request: Request, wait: bool = True) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        ports = None if body.ports is None else tuple(body.ports)
        made = await verbs.forks.fork(
            body.source,
            body.name,
            ports,
            of=body.of,
            lease=body.lease,
            wait=wait,
            report=report,
            begun=copying(report, body.source),
        )
        return render.instance(made)

    return respond(request, verbs.operations, "fork", work)


@routes.post("/instances/{name}/rollback")
async def roll_back(verbs: Given, name: str, body: Rollback, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        begun = copying(report, body.snapshot)
        await verbs.rollbacks.roll_back(name, body.snapshot, begun=begun)
        return render.instance(verbs.instances.get(name))

    return respond(request, verbs.operations, "rollback", work)
