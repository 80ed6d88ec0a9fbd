"""Routes on schedules."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.strict import Body, only_known
from sublet.domain.schedules import Missed, Overlap, Run, Schedule
from sublet.domain.spec import InstanceSpec
from sublet.engine.verbs import Verbs


class NewSchedule(Body):
    """`cron`: five fields, an alias, `every 6h` or `at TIME`; either `spec` or `start`, an
    instance; `limit` and `jitter` in seconds."""

    name: str
    cron: str
    timezone: str = "UTC"
    spec: InstanceSpec | None = None
    start: str = ""
    limit: float = 0.0
    missed: Missed = Missed.RUN
    overlap: Overlap = Overlap.SKIP
    jitter: float = 0.0
    keep: int = 3


routes = APIRouter(prefix="/v1/schedules", tags=["schedules"])
"""`/v1/schedules`."""


def rendered(verbs: Verbs, row: Schedule) -> dict[str, Any]:
    coming = verbs.schedules.upcoming(row, 1)
    last = verbs.schedules.last(row)
    instance = verbs.instances.parts.store.get(row.start)
    return {
        "id": row.id,
        "name": row.name,
        "cron": row.when,
        "timezone": row.timezone,
        "next": render.time(coming[0]) if coming else None,
        "last": render.time(last.due) if last else None,
        "last_outcome": last.outcome.value if last else None,
        "enabled": row.enabled,
        "image": row.spec.image if row.spec else None,
        "command": list(row.spec.command) if row.spec else None,
        "start": (instance.name if instance else row.start) or None,
        "limit": row.limit or None,
        "missed": row.missed.value,
        "overlap": row.overlap.value,
        "jitter": row.jitter,
        "keep": row.keep,
        "created": render.time(row.created),
    }


@routes.get("")
async def list_schedules(verbs: Given) -> list[dict[str, Any]]:
    return [rendered(verbs, row) for row in verbs.schedules.store.every()]


@routes.post("", status_code=201, dependencies=[Depends(only_known(NewSchedule))])
async def create_schedule(verbs: Given, body: NewSchedule) -> dict[str, Any]:
    values = {name: getattr(body, name) for name in NewSchedule.model_fields if name != "cron"}
    return rendered(verbs, verbs.schedules.create(Schedule(id="", when=body.cron, **values)))


@routes.get("/{name}")
async def inspect_schedule(verbs: Given, name: str) -> dict[str, Any]:
    row = verbs.schedules.get(name)
    upcoming = [render.time(moment) for moment in verbs.schedules.upcoming(row)]
    history = [run(each) for each in verbs.schedules.store.runs(row.id)]
    return {**rendered(verbs, row), "upcoming": upcoming, "history": history}


@routes.post("/{name}/run")
async def run_schedule(verbs: Given, name: str) -> dict[str, Any]:
    return run(verbs.schedules.run(name))


@routes.post("/{name}/pause", status_code=204)
async def pause_schedule(verbs: Given, name: str) -> None:
    verbs.schedules.pause(name)


@routes.post("/{name}/resume", status_code=204)
async def resume_schedule(verbs: Given, name: str) -> None:
    verbs.schedules.resume(name)


@routes.delete("/{name}", status_code=204)
async def remove_schedule(verbs: Given, name: str, force: bool = False) -> None:
    await verbs.schedules.remove(name, force=force)


def run(row: Run) -> dict[str, Any]:
    """One entry of a schedule's history; `duration` in seconds, `cost` in dollars."""
    return {
        "id": row.id,
        "due": render.time(row.due),
        "began": render.time(row.began),
        "ended": render.time(row.ended),
        "duration": round(row.ended - row.began, 3) if row.began and row.ended else None,
        "outcome": row.outcome.value,
        "exit_code": row.exit_code,
        "instance": row.instance or None,
        "instance_name": row.name or None,
        "cost": row.cost,
        "reason": row.reason or None,
    }
