"""The native API as an ASGI application."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

import sublet
from sublet.api.native import (
    backups,
    billing,
    catalog,
    files,
    idling,
    images,
    instances,
    leases,
    market,
    networks,
    paths,
    pools,
    pruning,
    registries,
    schedules,
    sessions,
    snapshots,
    strict,
    system,
    volumes,
    watching,
)
from sublet.domain.errors import InvalidArgument, SubletError, unexpected
from sublet.engine.verbs import Verbs

MAXIMUM_BODY = 4 << 20
"""Bytes that a request may carry; files are named by their path, not sent."""

_STREAMED = re.compile(r"/v1/instances/[^/]+/(archive|file)")
"""The paths whose PUT carries files; their routes take them piece by piece, and keep none."""


def build(verbs: Verbs) -> Any:
    """The application, with every error rendered as `code`, `message`, `hint`."""
    app = FastAPI(title="Sublet", version=sublet.__version__, docs_url=None, redoc_url=None)
    app.state.verbs = verbs
    for module in (
        snapshots,
        backups,
        instances,
        idling,
        files,
        paths,
        images,
        catalog,
        registries,
        volumes,
        networks,
        market,
        system,
        sessions,
        leases,
        watching,
        pruning,
        schedules,
        pools,
        billing,
    ):
        app.include_router(module.routes)

    @app.exception_handler(SubletError)
    async def known(_: Request, error: SubletError) -> Response:
        return _told(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return _told(strict.refusal(error.errors()[0], 1))

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return _told(unexpected(error))

    return _limited(app)


def _told(error: SubletError) -> Response:
    """The error as JSON in ASCII: it may quote names that are no UTF-8."""
    text = json.dumps(error.to_dict())
    return Response(text, status_code=error.status, media_type="application/json")


def _limited(app: Any) -> Any:
    """Refuse bodies over the limit, whatever length they claim to have."""

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "PUT" and _is_streamed(scope["path"]):
            await app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b"") or b"")
            if seen > MAXIMUM_BODY:
                raise InvalidArgument(f"The request is larger than {MAXIMUM_BODY} bytes.")
            return message

        await app(scope, counted if scope["type"] == "http" else receive, send)

    return limited


def _is_streamed(path: str) -> bool:
    return bool(_STREAMED.fullmatch(path))
