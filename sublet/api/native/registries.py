"""Routes on registries: credentials come in and never go out."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import SecretStr

from sublet.api.native.given import Given
from sublet.api.native.strict import Body


class Login(Body):
    """`tls_verify`: null is for every registry that is not on loopback."""

    registry: str = ""
    username: str
    password: SecretStr
    tls_verify: bool | None = None


routes = APIRouter(prefix="/v1/registries", tags=["registries"])
"""`/v1/registries`."""


@routes.post("/login")
async def login(verbs: Given, body: Login) -> dict[str, str]:
    password = body.password.get_secret_value()
    registry = await verbs.images.login(
        body.registry, body.username, password, tls_verify=body.tls_verify
    )
    return {"registry": registry}


@routes.delete("/login")
async def logout(verbs: Given, registry: str = "") -> dict[str, str]:
    return {"registry": await verbs.images.logout(registry)}
