"""Routes on images. What takes long is an operation, streamed line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond
from sublet.api.native.strict import Body
from sublet.domain.progress import Report


class Build(Body):
    """`directory` and `file` are absolute paths on this host; an empty `file`: the usual ones.
    `arguments`: values for the Containerfile's `ARG`s."""

    directory: str
    name: str = ""
    file: str = ""
    arguments: dict[str, str] = Field(default_factory=dict)


class Pull(Body):
    """`tls_verify`: null is for every registry that is not on loopback."""

    reference: str
    tls_verify: bool | None = None


class Pack(Body):
    """`source`: an image, a root file system's directory, or an OCI layout's."""

    source: str
    output: str


class Import(Body):
    path: str
    name: str = ""
    trust: bool = False


class Tag(Body):
    source: str
    name: str


class Prune(Body):
    """`all`: named images too. `dry_run`: only tell what would go."""

    all: bool = False
    filters: tuple[str, ...] = ()
    dry_run: bool = False


Filters = Annotated[tuple[str, ...], Query()]
"""`?filter=KEY=VALUE`, as often as wanted."""


routes = APIRouter(prefix="/v1/images", tags=["images"])
"""`/v1/images`."""


@routes.get("")
async def list_images(verbs: Given, filter: Filters = ()) -> list[dict[str, Any]]:
    return [render.image(row, verbs.images.repo_digests(row)) for row in verbs.images.all(filter)]


@routes.get("/inspect")
async def inspect_image(verbs: Given, name: str) -> dict[str, Any]:
    row = verbs.images.get(name)
    digests, file = verbs.images.repo_digests(row), verbs.images.files.path(row.digest)
    return render.image_inspection(row, digests, file)


@routes.get("/history")
async def image_history(verbs: Given, name: str) -> list[dict[str, Any]]:
    return render.image_history(verbs.images.get(name))


@routes.post("/tag")
async def tag_image(verbs: Given, body: Tag) -> dict[str, Any]:
    return render.image(verbs.images.tag(body.source, body.name))


@routes.delete("")
async def remove_image(verbs: Given, name: str, force: bool = False) -> dict[str, Any]:
    removed = await verbs.images.remove(name, force=force, in_use=verbs.instances.digests)
    return {"untagged": removed.names, "deleted": [row.digest for row in removed.images]}


@routes.post("/prune")
async def prune_images(verbs: Given, body: Prune) -> dict[str, Any]:
    found = await verbs.images.prune(
        body.filters, everything=body.all, in_use=verbs.instances.digests, dry=body.dry_run
    )
    return render.pruned(found)


@routes.post("/ensure")
async def ensure_image(verbs: Given, body: Pull, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(await verbs.images.ensure(body.reference, report=report))

    return respond(request, verbs.operations, "pull", work)


@routes.post("/pull")
async def pull_image(verbs: Given, body: Pull, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(
            await verbs.images.pull(body.reference, tls_verify=body.tls_verify, report=report)
        )

    return respond(request, verbs.operations, "pull", work)


@routes.post("/push")
async def push_image(verbs: Given, body: Pull, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return {
            "digest": await verbs.images.push(
                body.reference, tls_verify=body.tls_verify, report=report
            )
        }

    return respond(request, verbs.operations, "push", work)


@routes.post("/build")
async def build_image(verbs: Given, body: Build, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(
            await verbs.images.build(
                Path(body.directory),
                name=body.name,
                file=Path(body.file) if body.file else None,
                arguments=body.arguments,
                report=report,
            )
        )

    return respond(request, verbs.operations, "build", work)


@routes.post("/import")
async def import_image(verbs: Given, body: Import, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(
            await verbs.images.import_(
                Path(body.path), name=body.name, trust=body.trust, report=report
            )
        )

    return respond(request, verbs.operations, "import", work)


@routes.post("/pack")
async def pack_image(verbs: Given, body: Pack, request: Request) -> StreamingResponse:
    async def work(report: Report) -> dict[str, Any]:
        return render.image(await verbs.images.pack(body.source, Path(body.output), report=report))

    return respond(request, verbs.operations, "pack", work)
