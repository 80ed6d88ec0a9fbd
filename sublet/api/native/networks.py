"""Routes on networks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from sublet.api.native import render
from sublet.api.native.strict import Body, only_known
from sublet.domain import subnets
from sublet.domain.networks import NamedNetwork, NetworkSpec
from sublet.engine.networks import Member, Networks
from sublet.engine.verbs import Verbs

Filters = Annotated[tuple[str, ...], Query()]
"""`?filter=KEY=VALUE`, as often as wanted."""


class Connect(Body):
    """`instance` by name or id; `address` empty: the next free one."""

    instance: str
    aliases: tuple[str, ...] = ()
    address: str = ""


class Disconnect(Body):
    """`force`: an instance that is not on the network is fine."""

    instance: str
    force: bool = False


def shown(row: NamedNetwork, networks: Networks) -> dict[str, Any]:
    """One entry of `network ls`."""
    base = networks.parts.network.plan.subnet
    return {
        "id": row.id,
        "name": row.name,
        "subnet": str(row.within(base)),
        "gateway": str(row.door(base)),
        "internal": row.internal,
        "labels": dict(row.labels),
        "created": render.time(row.created),
    }


def inspection(row: NamedNetwork, networks: Networks) -> dict[str, Any]:
    """The answer to `network inspect`."""
    bridge = networks.parts.network.plan.segment(row).bridge
    members = [_member(member) for member in networks.members(row)]
    return {**shown(row, networks), "bridge": bridge, "instances": members}


def _member(member: Member) -> dict[str, Any]:
    return {
        "id": member.instance.id,
        "name": member.instance.name,
        "state": member.instance.state.value,
        "address": str(member.address),
        "mac": subnets.mac(member.address),
        "interface": f"eth{member.connection.interface}",
        "aliases": list(member.connection.aliases),
    }


def router(verbs: Verbs) -> APIRouter:
    """`/v1/networks`."""
    routes = APIRouter(prefix="/v1/networks", tags=["networks"])
    networks = verbs.networks

    @routes.get("")
    async def list_networks(filter: Filters = ()) -> list[dict[str, Any]]:
        return [shown(row, networks) for row in networks.list(filter)]

    @routes.post("", status_code=201, dependencies=[Depends(only_known(NetworkSpec))])
    async def create_network(spec: NetworkSpec) -> dict[str, Any]:
        return shown(await networks.create(spec), networks)

    @routes.post("/prune")
    async def prune_networks() -> list[str]:
        return list(await networks.prune())

    @routes.get("/{name}")
    async def inspect_network(name: str) -> dict[str, Any]:
        return inspection(networks.get(name), networks)

    @routes.delete("/{name}", status_code=204)
    async def remove_network(name: str) -> Response:
        await networks.remove(name)
        return Response(status_code=204)

    @routes.post("/{name}/connect", status_code=204)
    async def connect(name: str, body: Connect) -> Response:
        await networks.connect(name, body.instance, body.aliases, body.address)
        return Response(status_code=204)

    @routes.post("/{name}/disconnect", status_code=204)
    async def disconnect(name: str, body: Disconnect) -> Response:
        await networks.disconnect(name, body.instance, force=body.force)
        return Response(status_code=204)

    return routes
