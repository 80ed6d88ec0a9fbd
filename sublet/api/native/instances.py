"""Routes on instances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from sublet.api.native import details, market, render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond, unless_gone
from sublet.api.native.strict import only_known
from sublet.domain.change import Change
from sublet.domain.instance import Instance
from sublet.domain.progress import Report, silent
from sublet.domain.signals import signal_number
from sublet.domain.spec import InstanceSpec
from sublet.domain.waiting import Condition
from sublet.engine import footprint, usage
from sublet.engine.verbs import Verbs

Texts = Annotated[Sequence[str], Query()]
Timeout = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]

routes = APIRouter(prefix="/v1/instances", tags=["instances"])
"""`/v1/instances`, but for the routes with streams (sessions.py)."""


def _budget(verbs: Verbs, row: Instance) -> dict[str, Any] | None:
    """The budget of those that it is under of which most is spent."""
    found = verbs.budgets.of(row)
    return render.budget(found[0], verbs.budgets.reaches(found[0])) if found else None


def _told(verbs: Verbs, row: Instance) -> dict[str, Any]:
    """What whoever made, started or changed it is answered."""
    return {**render.instance(row), "warnings": verbs.instances.warnings(row)}


@routes.get("")
async def list_instances(
    verbs: Given,
    all: bool = False,
    filter: Texts = (),
    last: int = Query(0, ge=0),
    written: bool = False,
) -> list[dict[str, Any]]:
    rows = verbs.instances.select(filter, all=all, last=last)
    found = [{**render.instance(row), "budget": _budget(verbs, row)} for row in rows]
    if not written:
        return found
    sizes = await asyncio.to_thread(usage.written, verbs.instances.parts.containers, rows)
    return [{**entry, "written": sizes[entry["id"]]} for entry in found]


@routes.post("", status_code=201, dependencies=[Depends(only_known(InstanceSpec))])
async def run_instance(
    verbs: Given,
    spec: InstanceSpec,
    request: Request,
    start: bool = True,
    wait: bool = True,
    follow: bool = False,
    pooled: bool = False,
) -> Any:
    """`pooled`: it may be one that a pool has ready."""
    if not start:
        return _told(verbs, verbs.instances.create(spec))
    if pooled and (taken := verbs.pools.take(spec)):
        return _told(verbs, taken)

    async def work(report: Report) -> dict[str, Any]:
        instance, _ = await verbs.instances.run(spec, wait=wait, report=report)
        return _told(verbs, instance)

    if follow:
        return respond(request, verbs.operations, "start", work)
    return await unless_gone(request.receive, work(silent))


@routes.patch("/{name}", dependencies=[Depends(only_known(Change))])
async def update_instance(
    verbs: Given,
    name: str,
    change: Change,
    request: Request,
    wait: bool = True,
    follow: bool = False,
) -> Any:
    async def work(report: Report) -> dict[str, Any]:
        row = await verbs.instances.update(name, change, wait=wait, report=report)
        return _told(verbs, row)

    return respond(request, verbs.operations, "update", work) if follow else await work(silent)


@routes.post("/{name}/start")
async def start_instance(
    verbs: Given, name: str, request: Request, wait: bool = True, follow: bool = False
) -> Any:
    async def work(report: Report) -> dict[str, Any]:
        instance, _ = await verbs.instances.start(name, wait=wait, report=report)
        return _told(verbs, instance)

    if follow:
        return respond(request, verbs.operations, "start", work)
    return await unless_gone(request.receive, work(silent))


@routes.post("/{name}/restart", status_code=204)
async def restart_instance(verbs: Given, name: str, timeout: Timeout = None) -> None:
    await verbs.instances.restart(name, timeout)


@routes.post("/{name}/pause", status_code=204)
async def pause_instance(verbs: Given, name: str) -> None:
    await verbs.instances.pause(name)


@routes.post("/{name}/unpause", status_code=204)
async def unpause_instance(verbs: Given, name: str) -> None:
    await verbs.instances.unpause(name)


@routes.post("/{name}/hibernate", status_code=204)
async def hibernate_instance(verbs: Given, name: str) -> None:
    await verbs.instances.hibernate(name)


@routes.post("/{name}/wake", status_code=204)
async def wake_instance(
    verbs: Given, name: str, request: Request, wait: bool = True, follow: bool = False
) -> Response:
    if follow:

        async def work(report: Report) -> dict[str, Any]:
            await verbs.instances.wake(name, wait=wait, report=report)
            return render.instance(verbs.instances.get(name))

        return respond(request, verbs.operations, "start", work)
    await verbs.instances.wake(name, wait=wait)
    return Response(status_code=204)


@routes.post("/{name}/rename", status_code=204)
async def rename_instance(verbs: Given, name: str, new: str) -> None:
    await verbs.instances.rename(name, new)


@routes.get("/{name}")
async def inspect_instance(verbs: Given, name: str) -> dict[str, Any]:
    row = verbs.instances.get(name)
    return {
        **render.inspection(row, verbs.instances),
        **details.upkeep(row, verbs.health),
        "budget": _budget(verbs, row),
        **details.idleness(row, verbs.idleness.report(row)),
        **market.sold(row, verbs.market),
        **details.wake(row, verbs.waking.failure(row.id)),
    }


@routes.get("/{name}/footprint")
async def measure_instance(verbs: Given, name: str) -> dict[str, Any]:
    return asdict(await footprint.measure(verbs.instances, verbs.instances.get(name)))


@routes.delete("/{name}", status_code=204)
async def remove_instance(
    verbs: Given, name: str, force: bool = False, volumes: bool = False
) -> None:
    await verbs.instances.remove(name, force=force, volumes=volumes)


@routes.post("/{name}/stop", status_code=204)
async def stop_instance(verbs: Given, name: str, timeout: Timeout = None) -> None:
    await verbs.instances.stop(name, timeout)


@routes.post("/{name}/kill", status_code=204)
async def kill_instance(verbs: Given, name: str, signal: str = "SIGKILL") -> None:
    await verbs.instances.kill(name, signal_number(signal))


@routes.post("/{name}/wait")
async def wait_for_instance(
    verbs: Given, name: str, condition: Condition = Condition.STOPPED
) -> dict[str, int]:
    if condition is Condition.STOPPED:
        return {"exit_code": await verbs.instances.wait(name)}
    return {"exit_code": await verbs.instances.wait_until(name, condition)}
