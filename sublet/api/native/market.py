"""Routes on the market: sizes, the price, spot requests, reclaims."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import Field

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.streaming import respond
from sublet.api.native.strict import Body
from sublet.domain.errors import InvalidArgument
from sublet.domain.instance import Instance
from sublet.domain.moments import moment
from sublet.domain.notice import LONGEST, Notice
from sublet.domain.progress import Report
from sublet.domain.size import Size
from sublet.domain.size_names import size_names
from sublet.domain.spot import Request
from sublet.domain.units import parse_duration
from sublet.engine.market import SpotMarket
from sublet.engine.rehearsal import summary
from sublet.engine.verbs import Verbs


class Drain(Body):
    """`notice` in seconds, null: as always."""

    notice: float | None = Field(default=None, ge=0, le=LONGEST, allow_inf_nan=False)


class Reclaim(Drain):
    """`instances` by name or id, or `all` spot instances."""

    instances: list[str] = Field(default_factory=list)
    all: bool = False


def sold(row: Instance, market: SpotMarket) -> dict[str, Any]:
    """The part of `inspect` that tells how it is sold."""
    found, asked = market.requests.of(row.id), row.spec.spot
    request = {} if found is None else {"request": found.id, **_standing(found)}
    spot = None
    if asked is not None:
        spot = {
            **request,
            "max_price": market.ceiling(row.spec),
            "on_reclaim": asked.on_reclaim.value,
            "persistent": asked.persistent,
            "notice_signal": asked.notice_signal or None,
            "notice_exec": list(asked.notice_exec) or None,
        }
    given = market.notice(row.id)
    return {"price": market.price(row.spec), "spot": spot, "notice": _brief(given)}


def _brief(found: Notice | None) -> dict[str, Any] | None:
    if found is None:
        return None
    when = render.time(found.deadline)
    return {"action": found.action.value, "time": when, "reason": found.reason.value}


def _standing(row: Request) -> dict[str, Any]:
    return {"state": row.state.value, "status": row.status.value, "type": row.type.value}


def _request(row: Request) -> dict[str, Any]:
    return {
        "id": row.id,
        "instance": row.instance,
        "name": row.name,
        **_standing(row),
        "max_price": row.max_price,
        "created": render.time(row.created),
        "updated": render.time(row.updated),
    }


routes = APIRouter(prefix="/v1", tags=["market"])
"""`/v1/sizes`, `/v1/market`, `/v1/spot`, `/v1/reclaim`, `/v1/host/drain`."""


def notices(verbs: Verbs, found: list[Notice]) -> list[dict[str, Any]]:
    rows = [(verbs.instances.parts.store.get(each.instance), each) for each in found]
    return [{"id": row.id, "name": row.name, **(_brief(each) or {})} for row, each in rows if row]


@routes.get("/sizes")
async def list_sizes(verbs: Given) -> list[dict[str, Any]]:
    own = dict(verbs.config.sizes)
    return [
        {
            "name": name,
            "size": str(size),
            "cpus": size.cpus,
            "memory": size.memory,
            "price": verbs.config.prices.hourly(size),
            "spot_price": verbs.config.prices.hourly(size) * verbs.market.factor(),
            "own": name in own,
        }
        for name, size in size_names(verbs.config.sizes).items()
    ]


@routes.get("/market")
async def show_market(verbs: Given, since: str = "24h", size: str = Query("1x1")) -> dict[str, Any]:
    now = time.time()
    asked: Size = verbs.config.size_of(size)
    begin = min(moment(since, now), now)
    price = verbs.config.prices.hourly(asked)
    history = verbs.market.store.quotes(begin)
    return {
        "time": render.time(now),
        "factor": verbs.market.factor(),
        "used": verbs.market.used(),
        "size": str(asked),
        "on_demand_price": price,
        "price": price * verbs.market.factor(),
        "draining": verbs.market.draining,
        "pressure": verbs.market.pressed or None,
        "history": [
            {
                "time": render.time(max(each.time, begin)),
                "factor": each.factor,
                "price": price * each.factor,
                "used": each.used,
            }
            for each in history
        ],
    }


@routes.get("/spot")
async def list_requests(verbs: Given) -> list[dict[str, Any]]:
    return [_request(row) for row in verbs.market.requests.every()]


@routes.get("/spot/{name}")
async def show_request(verbs: Given, name: str) -> dict[str, Any]:
    found = verbs.market.requests.get(name)
    return {**_request(found), "notice": _brief(verbs.market.notices.real(found.instance))}


@routes.delete("/spot/{name}")
async def cancel_request(verbs: Given, name: str) -> dict[str, Any]:
    return _request(verbs.market.requests.cancel(name))


@routes.post("/reclaim")
async def reclaim(verbs: Given, body: Reclaim) -> list[dict[str, Any]]:
    if bool(body.instances) == body.all:
        raise InvalidArgument("Name spot instances, or say all.", hint="sublet reclaim --all")
    rows = [verbs.instances.get(name) for name in body.instances]
    wanted = verbs.market.holdings.running() if body.all else rows
    return notices(verbs, verbs.market.reclaim(wanted, notice=body.notice))


@routes.post("/instances/{name}/rehearse")
async def rehearse(
    verbs: Given, name: str, request: HttpRequest, notice: str = Query("")
) -> StreamingResponse:
    seconds = parse_duration(notice) if notice else verbs.config.notice

    async def work(report: Report) -> dict[str, Any]:
        found = await verbs.rehearsals.rehearse(name, seconds, report)
        return {**asdict(found), "backed_up": found.backed_up, "report": summary(found)}

    return respond(request, verbs.operations, "rehearsal", work)


@routes.post("/host/drain")
async def drain(verbs: Given, body: Drain | None = None) -> list[dict[str, Any]]:
    return notices(verbs, verbs.market.drain(notice=body.notice if body else None))


@routes.post("/host/undrain", status_code=204)
async def undrain(verbs: Given) -> None:
    verbs.market.undrain()
