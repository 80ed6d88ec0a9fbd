"""Routes on networks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.strict import Body, only_known
from sublet.domain import subnets
from sublet.domain.networks import NamedNetwork, NetworkSpec
from sublet.engine.networks import Member, Networks

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


routes = APIRouter(prefix="/v1/networks", tags=["networks"])
"""`/v1/networks`."""


@routes.get("")
async def list_networks(verbs: Given, filter: Filters = ()) -> list[dict[str, Any]]:
    return [shown(row, verbs.networks) for row in verbs.networks.list(filter)]


@routes.post("", status_code=201, dependencies=[Depends(only_known(NetworkSpec))])
async def create_network(verbs: Given, spec: NetworkSpec) -> dict[str, Any]:
    return shown(await verbs.networks.create(spec), verbs.networks)


@routes.post("/prune")
async def prune_networks(verbs: Given) -> list[str]:
    return list(await verbs.networks.prune())


@routes.get("/{name}")
async def inspect_network(verbs: Given, name: str) -> dict[str, Any]:
    return inspection(verbs.networks.get(name), verbs.networks)


@routes.delete("/{name}", status_code=204)
async def remove_network(verbs: Given, name: str) -> None:
    await verbs.networks.remove(name)


@routes.post("/{name}/connect", status_code=204)
async def connect(verbs: Given, name: str, body: Connect) -> None:
    await verbs.networks.connect(name, body.instance, body.aliases, body.address)


@routes.post("/{name}/disconnect", status_code=204)
async def disconnect(verbs: Given, name: str, body: Disconnect) -> None:
    await verbs.networks.disconnect(name, body.instance, force=body.force)
