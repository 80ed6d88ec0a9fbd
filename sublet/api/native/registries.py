"""Routes on registries: credentials come in and never go out."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import SecretStr

from sublet.api.native.strict import Body
from sublet.engine.verbs import Verbs


class Login(Body):
    """`tls_verify`: null is for every registry that is not on loopback."""

    registry: str = ""
    username: str
    password: SecretStr
    tls_verify: bool | None = None


def router(verbs: Verbs) -> APIRouter:
    """`/v1/registries`."""
    routes = APIRouter(prefix="/v1/registries", tags=["registries"])

    @routes.post("/login")
    async def login(body: Login) -> dict[str, str]:
        password = body.password.get_secret_value()
        registry = await verbs.images.login(
            body.registry, body.username, password, tls_verify=body.tls_verify
        )
        return {"registry": registry}

    @routes.delete("/login")
    async def logout(registry: str = "") -> dict[str, str]:
        return {"registry": await verbs.images.logout(registry)}

    return routes
