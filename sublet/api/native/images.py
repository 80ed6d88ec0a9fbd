"""Routes on images. What takes long is an operation, streamed line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from sublet.api.native import render
from sublet.api.native.streaming import Report, respond
from sublet.domain.image import Image
from sublet.engine.verbs import Verbs


class Build(BaseModel):
    """`directory` and `file` are absolute paths on this host; an empty `file`: the usual ones."""

    directory: str
    name: str = ""
    file: str = ""


class Pull(BaseModel):
    reference: str


class Pack(BaseModel):
    """`source`: an image, a root file system's directory, or an OCI layout's."""

    source: str
    output: str


class Import(BaseModel):
    path: str
    name: str = ""
    trust: bool = False


def router(verbs: Verbs) -> APIRouter:
    """`/v1/images`."""
    routes = APIRouter(prefix="/v1/images", tags=["images"])
    images, operations = verbs.images, verbs.operations

    @routes.get("")
    async def list_images() -> list[dict[str, Any]]:
        return [render.image(row) for row in images.all()]

    @routes.delete("", status_code=204)
    async def remove_image(name: str, force: bool = False) -> Response:
        in_use = {row.digest for row in verbs.instances.list(all=True)}
        await images.remove(name, force=force, in_use=in_use)
        return Response(status_code=204)

    @routes.post("/ensure")
    async def ensure_image(body: Pull, request: Request) -> StreamingResponse:
        async def work(report: Report) -> dict[str, Any]:
            return _made(await images.ensure(body.reference, report=report))

        return respond(request, operations, "pull", work)

    @routes.post("/pull")
    async def pull_image(body: Pull, request: Request) -> StreamingResponse:
        async def work(report: Report) -> dict[str, Any]:
            return _made(await images.pull(body.reference, report=report))

        return respond(request, operations, "pull", work)

    @routes.post("/build")
    async def build_image(body: Build, request: Request) -> StreamingResponse:
        async def work(report: Report) -> dict[str, Any]:
            return _made(
                await images.build(
                    Path(body.directory),
                    name=body.name,
                    file=Path(body.file) if body.file else None,
                    report=report,
                )
            )

        return respond(request, operations, "build", work)

    @routes.post("/import")
    async def import_image(body: Import, request: Request) -> StreamingResponse:
        async def work(report: Report) -> dict[str, Any]:
            return _made(
                await images.import_(
                    Path(body.path), name=body.name, trust=body.trust, report=report
                )
            )

        return respond(request, operations, "import", work)

    @routes.post("/pack")
    async def pack_image(body: Pack, request: Request) -> StreamingResponse:
        async def work(report: Report) -> dict[str, Any]:
            return _made(await images.pack(body.source, Path(body.output), report=report))

        return respond(request, operations, "pack", work)

    return routes


def _made(image: Image) -> dict[str, Any]:
    return render.image(image)
