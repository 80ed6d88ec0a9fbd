"""Routes on the bill."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query

from sublet.domain.bill import Line
from sublet.domain.moments import moment, zone
from sublet.domain.size import Size
from sublet.domain.what_if import Scenario
from sublet.engine.verbs import Verbs

DIGITS = 9
"""Of dollars and seconds, behind the point: less than that is the floating point's own."""


def router(verbs: Verbs) -> APIRouter:
    """`/v1/cost` and `/v1/cost/what-if`."""
    routes = APIRouter(prefix="/v1/cost", tags=["bill"])
    bills = verbs.bills

    @routes.get("")
    async def cost(
        by: str = "instance", since: str = "", until: str = "", tz: str = "UTC"
    ) -> list[dict[str, Any]]:
        now, place = time.time(), zone(tz)
        begin = moment(since, now, place) if since else 0.0
        end = moment(until, now, place) if until else math.inf
        return [_rounded(line) for line in await bills.lines(by, begin, end, place)]

    @routes.get("/what-if")
    async def what_if(
        size: str,
        hours: float = Query(24.0, allow_inf_nan=False),
        days: float = Query(31.0, allow_inf_nan=False),
        spot: bool = False,
        ec2: bool = False,
    ) -> dict[str, Any]:
        plan = bills.what_if(Size.parse(size), hours, days, spot=spot, ec2=ec2)
        return {"prices": plan.prices, "scenarios": [_rounded(each) for each in plan.scenarios]}

    return routes


def _rounded(row: Line | Scenario) -> dict[str, Any]:
    return {
        key: round(value, DIGITS) if isinstance(value, float) else value
        for key, value in asdict(row).items()
    }
