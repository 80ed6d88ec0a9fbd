"""Routes on single files of instances. Bodies are what the files hold, as it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from sublet.api.native.files import heard, sent, using
from sublet.api.native.given import Given
from sublet.api.native.strict import Body
from sublet.domain.file_info import KEEP, FileVerb, Question


class Asked(Body):
    """What is to be done with `path`; see `Question`."""

    verb: FileVerb
    path: str
    to: str = ""
    depth: int = 1


routes = APIRouter(prefix="/v1/instances", tags=["files"])
"""`/v1/instances/NAME/file`, `/files` and `/watch`."""


@routes.get("/{name}/file")
async def read_file(verbs: Given, name: str, path: str) -> StreamingResponse:
    return await sent(verbs.paths.fetch(name, path), using(verbs, name), "application/octet-stream")


@routes.put("/{name}/file", status_code=204)
async def write_file(
    verbs: Given, name: str, path: str, request: Request, mode: Annotated[int, Query()] = KEEP
) -> None:
    async with heard(request, "file") as stream:
        with using(verbs, name):
            await verbs.paths.store(name, path, stream, mode)


@routes.post("/{name}/files")
async def ask_of_path(verbs: Given, name: str, body: Asked) -> Response:
    with using(verbs, name):
        found = await verbs.paths.ask(name, Question(body.verb, body.path, body.to, body.depth))
    rows: list[dict[str, Any]] = [asdict(each) for each in found]
    return Response(json.dumps(rows), media_type="application/json")


@routes.get("/{name}/watch")
async def watch_files(
    verbs: Given, name: str, path: str, recursive: bool = False
) -> StreamingResponse:
    """JSON lines with `type`, `path` and `to`: `ready` first, then what happens."""
    telling = verbs.file_watches.watch(name, path, recursive=recursive)
    return await sent(telling, using(verbs, name, "watch"), "application/x-ndjson")
