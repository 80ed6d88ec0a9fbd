"""Routes on the host and the daemon itself."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

import sublet
from sublet.api.native.given import Given
from sublet.engine import host

routes = APIRouter(prefix="/v1", tags=["system"])
"""`/v1/version`, `/v1/host`, `/v1/audit`, `/v1/operations`."""


@routes.get("/version")
async def version(verbs: Given) -> dict[str, Any]:
    return {
        "version": sublet.__version__,
        "pid": os.getpid(),
        "root": str(verbs.config.root),
    }


@routes.post("/shutdown", status_code=202)
async def shutdown() -> Response:
    os.kill(os.getpid(), signal.SIGTERM)
    return Response(status_code=202)


@routes.get("/host")
async def describe_host(verbs: Given) -> dict[str, Any]:
    return await host.describe(verbs.config, verbs.instances)


@routes.get("/audit")
async def audit(verbs: Given) -> list[dict[str, str]]:
    return [asdict(leftover) for leftover in await verbs.reconciler.audit()]


@routes.post("/audit/fix")
async def fix(verbs: Given) -> list[dict[str, str]]:
    return [asdict(leftover) for leftover in await verbs.reconciler.fix()]


@routes.get("/operations")
async def list_operations(verbs: Given) -> list[dict[str, Any]]:
    return [
        {
            "id": operation.id,
            "kind": operation.kind,
            "state": operation.state.value,
            "progress": operation.lines[-1] if operation.lines else "",
            "error": operation.error.to_dict() if operation.error else None,
        }
        for operation in verbs.operations.list()
    ]


@routes.delete("/operations/{operation_id}", status_code=204)
async def cancel_operation(verbs: Given, operation_id: str) -> None:
    await verbs.operations.cancel(operation_id)
