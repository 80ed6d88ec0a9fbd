"""Requests are taken as they are meant, or refused: an unknown key is a mistake, not a wish."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from sublet.domain.errors import InvalidArgument

T = TypeVar("T")


class Body(BaseModel):
    """What a request carries; a key that it has not is refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _text(cls, values: Any) -> Any:
        """JSON may hold half of a character, which neither files nor programs can be called."""
        try:
            json.dumps(values, ensure_ascii=False, default=str).encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueError("half of a character is no UTF-8") from error
        except RecursionError as error:
            raise ValueError("it is too deep") from error
        return values


def parse(adapter: TypeAdapter[T], text: str | bytes) -> T:
    """The request in a JSON text. Raises InvalidArgument, naming the key that is wrong."""
    try:
        return adapter.validate_json(text, extra="forbid")
    except ValidationError as error:
        raise refusal(error.errors()[0], 0) from error


def refusal(problem: Any, skipped: int) -> InvalidArgument:
    """What to say of one of pydantic's errors; `skipped` parts of its place are none of ours."""
    place = ".".join(str(part) for part in problem["loc"][skipped:])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return InvalidArgument(
            f"The request has an unknown key '{place}'.",
            hint="`GET /openapi.json` lists them; a newer client may know more than the daemon.",
        )
    return InvalidArgument(f"{place}: {problem['msg']}." if place else f"{problem['msg']}.")


def only_known(kind: type[Any]) -> Callable[[Request], Awaitable[None]]:
    """A dependency of a route: its body has no key that `kind` has not, at any depth."""
    adapter = TypeAdapter(kind)

    async def check(request: Request) -> None:
        parse(adapter, await request.body())

    return check
