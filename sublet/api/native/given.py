"""What routes act on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sublet.engine.verbs import Verbs


async def _verbs(connection: HTTPConnection) -> Verbs:
    """Those that `app.build` was given; not a plain function, which would run in a thread."""
    verbs: Verbs = connection.app.state.verbs
    return verbs


Given = Annotated[Verbs, Depends(_verbs)]
