"""Routes on single files of instances. Bodies are what the files hold, as it is."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from sublet.api.native.files import heard, sent
from sublet.api.native.strict import Body
from sublet.domain.file_info import KEEP, FileVerb, Question
from sublet.engine.verbs import Verbs


class Asked(Body):
    """What is to be done with `path`; see `Question`."""

    verb: FileVerb
    path: str
    to: str = ""
    depth: int = 1


def router(verbs: Verbs) -> APIRouter:
    """`/v1/instances/NAME/file`, `/files` and `/watch`."""
    routes = APIRouter(prefix="/v1/instances", tags=["files"])
    paths = verbs.paths

    def using(name: str) -> AbstractContextManager[None]:
        return verbs.idleness.session(verbs.instances.get(name).id, "copy")

    @routes.get("/{name}/file")
    async def read_file(name: str, path: str) -> StreamingResponse:
        return await sent(paths.fetch(name, path), using(name), "application/octet-stream")

    @routes.put("/{name}/file", status_code=204)
    async def write_file(
        name: str, path: str, request: Request, mode: Annotated[int, Query()] = KEEP
    ) -> Response:
        async with heard(request, "file") as stream:
            with using(name):
                await paths.store(name, path, stream, mode)
        return Response(status_code=204)

    @routes.post("/{name}/files")
    async def ask_of_path(name: str, body: Asked) -> Response:
        with using(name):
            found = await paths.ask(name, Question(body.verb, body.path, body.to, body.depth))
        rows: list[dict[str, Any]] = [asdict(each) for each in found]
        return Response(json.dumps(rows), media_type="application/json")

    @routes.get("/{name}/watch")
    async def watch_files(name: str, path: str, recursive: bool = False) -> StreamingResponse:
        """JSON lines with `type`, `path` and `to`: `ready` first, then what happens."""
        using = verbs.idleness.session(verbs.instances.get(name).id, "watch")
        telling = verbs.file_watches.watch(name, path, recursive=recursive)
        return await sent(telling, using, "application/x-ndjson")

    return routes
