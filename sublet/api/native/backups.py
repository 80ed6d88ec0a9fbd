"""Routes on backups and restores. What sends or fetches is an operation, streamed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond
from sublet.api.native.strict import Body
from sublet.domain.backup import Backup
from sublet.domain.progress import Report
from sublet.domain.retention import Keep


class NewBackup(Body):
    """`repository` empty: the configured one. `paths`: only what the instance wrote there."""

    repository: str = ""
    paths: list[str] = Field(default_factory=list)


class Restore(Body):
    """`name` empty: as the backed-up instance was called. `size` such as `2x4`, empty: as it was.
    `start` null: where it ran then. `trust`: it may mount of this host what it asks for."""

    backup: str
    repository: str = ""
    name: str = ""
    size: str = ""
    vm: bool = False
    start: bool | None = None
    trust: bool = False


class Prune(Body):
    """What stays of each instance's backups, or of one's."""

    instance: str = ""
    repository: str = ""
    last: int = Field(0, ge=0)
    daily: int = Field(0, ge=0)
    weekly: int = Field(0, ge=0)
    dry_run: bool = False


class Verify(Body):
    """`data`: every byte is read."""

    repository: str = ""
    data: bool = False


def rendered(backup: Backup) -> dict[str, Any]:
    """One entry of `backups`."""
    return {
        "id": backup.id,
        "instance": backup.instance,
        "name": backup.name,
        "time": render.time(backup.time),
        "size": backup.size,
        "complete": backup.complete,
        "missing": backup.missing or None,
        "reason": backup.reason or None,
        "repository": backup.repository,
    }


routes = APIRouter(prefix="/v1", tags=["backups"])
"""`/v1/backups`, `/v1/restore` and `/v1/instances/{name}/backups`."""


@routes.get("/backups")
async def list_backups(
    verbs: Given, instance: str = "", repository: str = ""
) -> list[dict[str, Any]]:
    return [rendered(backup) for backup in await verbs.backups.every(instance, repository)]


@routes.delete("/backups/{name}", status_code=204)
async def remove_backup(verbs: Given, name: str, repository: str = "") -> None:
    await verbs.backups.remove(name, repository)


@routes.post("/instances/{name}/backups")
async def take_backup(
    verbs: Given, name: str, body: NewBackup, request: Request
) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return rendered(
            await verbs.backups.create(name, body.repository, body.paths, report=report)
        )

    return respond(request, verbs.operations, "backup", work)


@routes.post("/restore")
async def restore(
    verbs: Given, body: Restore, request: Request, wait: bool = True
) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        made = await verbs.restores.restore(
            body.backup,
            body.repository,
            name=body.name,
            size=body.size,
            vm=body.vm,
            start=body.start,
            trust=body.trust,
            wait=wait,
            report=report,
        )
        return {**render.instance(made), "warnings": verbs.instances.warnings(made)}

    return respond(request, verbs.operations, "restore", work)


@routes.post("/backups/prune")
async def prune_backups(verbs: Given, body: Prune, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        report("Looking for backups" if body.dry_run else "Deleting backups")
        keep = Keep(body.last, body.daily, body.weekly)
        found = await verbs.backups.prune(body.instance, keep, body.repository, dry=body.dry_run)
        return {"backups": [rendered(backup) for backup in found]}

    return respond(request, verbs.operations, "prune", work)


@routes.post("/backups/verify")
async def verify_backups(verbs: Given, body: Verify, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        report("Checking the repository")
        await verbs.backups.verify(body.repository, data=body.data)
        return {"repository": verbs.backups.repositories.address(body.repository)}

    return respond(request, verbs.operations, "verify", work)
