"""Routes on instances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from sublet.api.native import details, market, render
from sublet.api.native.streaming import Report, respond, unless_gone
from sublet.api.native.strict import only_known
from sublet.domain.change import Change
from sublet.domain.instance import Instance
from sublet.domain.signals import signal_number
from sublet.domain.spec import InstanceSpec
from sublet.domain.waiting import Condition
from sublet.engine import footprint, usage
from sublet.engine.verbs import Verbs

Texts = Annotated[Sequence[str], Query()]
Timeout = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]


def router(verbs: Verbs) -> APIRouter:
    """`/v1/instances`, but for the routes with streams (sessions.py)."""
    routes = APIRouter(prefix="/v1/instances", tags=["instances"])
    instances = verbs.instances

    def _budget(row: Instance) -> dict[str, Any] | None:
        """The budget of those that it is under of which most is spent."""
        found = verbs.budgets.of(row)
        return render.budget(found[0], verbs.budgets.reaches(found[0])) if found else None

    @routes.get("")
    async def list_instances(
        all: bool = False, filter: Texts = (), last: int = Query(0, ge=0), written: bool = False
    ) -> list[dict[str, Any]]:
        rows = instances.select(filter, all=all, last=last)
        found = [{**render.instance(row), "budget": _budget(row)} for row in rows]
        if not written:
            return found
        sizes = await asyncio.to_thread(usage.written, instances.parts.containers, rows)
        return [{**entry, "written": sizes[entry["id"]]} for entry in found]

    @routes.post("", status_code=201, dependencies=[Depends(only_known(InstanceSpec))])
    async def run_instance(
        spec: InstanceSpec,
        request: Request,
        start: bool = True,
        wait: bool = True,
        follow: bool = False,
        pooled: bool = False,
    ) -> Any:
        """`pooled`: it may be one that a pool has ready."""

        def told(instance: Instance) -> dict[str, Any]:
            return {**render.instance(instance), "warnings": instances.warnings(instance)}

        if not start:
            return told(instances.create(spec))
        if pooled and (taken := verbs.pools.take(spec)):
            return told(taken)
        if follow:

            async def work(report: Report) -> dict[str, Any]:
                instance, _ = await instances.run(spec, wait=wait, report=report)
                return told(instance)

            return respond(request, verbs.operations, "start", work)
        instance, _ = await unless_gone(request.receive, instances.run(spec, wait=wait))
        return told(instance)

    @routes.patch("/{name}", dependencies=[Depends(only_known(Change))])
    async def update_instance(
        name: str, change: Change, request: Request, wait: bool = True, follow: bool = False
    ) -> Any:
        if follow:

            async def work(report: Report) -> dict[str, Any]:
                row = await instances.update(name, change, wait=wait, report=report)
                return {**render.instance(row), "warnings": instances.warnings(row)}

            return respond(request, verbs.operations, "update", work)
        row = await instances.update(name, change, wait=wait)
        return {**render.instance(row), "warnings": instances.warnings(row)}

    @routes.post("/{name}/start")
    async def start_instance(
        name: str, request: Request, wait: bool = True, follow: bool = False
    ) -> Any:
        if follow:

            async def work(report: Report) -> dict[str, Any]:
                instance, _ = await instances.start(name, wait=wait, report=report)
                return {**render.instance(instance), "warnings": instances.warnings(instance)}

            return respond(request, verbs.operations, "start", work)
        instance, _ = await unless_gone(request.receive, instances.start(name, wait=wait))
        return {**render.instance(instance), "warnings": instances.warnings(instance)}

    @routes.post("/{name}/restart", status_code=204)
    async def restart_instance(name: str, timeout: Timeout = None) -> Response:
        await instances.restart(name, timeout)
        return Response(status_code=204)

    @routes.post("/{name}/pause", status_code=204)
    async def pause_instance(name: str) -> Response:
        await instances.pause(name)
        return Response(status_code=204)

    @routes.post("/{name}/unpause", status_code=204)
    async def unpause_instance(name: str) -> Response:
        await instances.unpause(name)
        return Response(status_code=204)

    @routes.post("/{name}/hibernate", status_code=204)
    async def hibernate_instance(name: str) -> Response:
        await instances.hibernate(name)
        return Response(status_code=204)

    @routes.post("/{name}/wake", status_code=204)
    async def wake_instance(
        name: str, request: Request, wait: bool = True, follow: bool = False
    ) -> Response:
        if follow:

            async def work(report: Report) -> dict[str, Any]:
                await instances.wake(name, wait=wait, report=report)
                return render.instance(instances.get(name))

            return respond(request, verbs.operations, "start", work)
        await instances.wake(name, wait=wait)
        return Response(status_code=204)

    @routes.post("/{name}/rename", status_code=204)
    async def rename_instance(name: str, new: str) -> Response:
        await instances.rename(name, new)
        return Response(status_code=204)

    @routes.get("/{name}")
    async def inspect_instance(name: str) -> dict[str, Any]:
        row = instances.get(name)
        return {
            **render.inspection(row, instances),
            **details.upkeep(row, verbs.health),
            "budget": _budget(row),
            **details.idleness(row, verbs.idleness.report(row)),
            **market.sold(row, verbs.market),
            **details.wake(row, verbs.waking.failure(row.id)),
        }

    @routes.get("/{name}/footprint")
    async def measure_instance(name: str) -> dict[str, Any]:
        return asdict(await footprint.measure(instances, instances.get(name)))

    @routes.delete("/{name}", status_code=204)
    async def remove_instance(name: str, force: bool = False, volumes: bool = False) -> Response:
        await instances.remove(name, force=force, volumes=volumes)
        return Response(status_code=204)

    @routes.post("/{name}/stop", status_code=204)
    async def stop_instance(name: str, timeout: Timeout = None) -> Response:
        await instances.stop(name, timeout)
        return Response(status_code=204)

    @routes.post("/{name}/kill", status_code=204)
    async def kill_instance(name: str, signal: str = "SIGKILL") -> Response:
        await instances.kill(name, signal_number(signal))
        return Response(status_code=204)

    @routes.post("/{name}/wait")
    async def wait_for_instance(
        name: str, condition: Condition = Condition.STOPPED
    ) -> dict[str, int]:
        if condition is Condition.STOPPED:
            return {"exit_code": await instances.wait(name)}
        return {"exit_code": await instances.wait_until(name, condition)}

    return routes
