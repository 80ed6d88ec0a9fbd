"""Routes on the bill."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query

from sublet.api.native import render
from sublet.api.native.given import Given
from sublet.api.native.strict import Body
from sublet.domain.bill import Line
from sublet.domain.budget import Budget, Period, Standing
from sublet.domain.moments import moment, zone
from sublet.domain.what_if import Scenario
from sublet.engine.verbs import Verbs

DIGITS = 9
"""Of dollars and seconds, behind the point: less than that is the floating point's own."""


class NewBudget(Body):
    """`subject`: an instance, or `label=KEY=VALUE`; `amount` in dollars."""

    subject: str
    amount: float
    period: Period = Period.MONTH


routes = APIRouter(prefix="/v1", tags=["bill"])
"""`/v1/cost`, `/v1/cost/what-if` and `/v1/budgets`."""


def named(verbs: Verbs, standing: Standing) -> dict[str, Any]:
    """With the name of its instance, if it is one's."""
    row = verbs.instances.parts.store.get(standing.subject)
    found = render.budget(standing, verbs.budgets.reaches(standing))
    return {**found, "name": row.name if row else standing.subject}


@routes.get("/budgets")
async def list_budgets(verbs: Given) -> list[dict[str, Any]]:
    return [named(verbs, standing) for standing in verbs.budgets.every()]


@routes.put("/budgets")
async def set_budget(verbs: Given, body: NewBudget) -> dict[str, Any]:
    return named(verbs, await verbs.budgets.put(body.subject, Budget(body.amount, body.period)))


@routes.delete("/budgets", status_code=204)
async def remove_budget(verbs: Given, subject: str) -> None:
    await verbs.budgets.remove(subject)


@routes.get("/cost")
async def cost(
    verbs: Given,
    by: str = "instance",
    since: str = "",
    until: str = "",
    tz: str = "UTC",
    instance: str = "",
) -> list[dict[str, Any]]:
    now, place = time.time(), zone(tz)
    begin = moment(since, now, place) if since else 0.0
    end = moment(until, now, place) if until else math.inf
    lines = await verbs.bills.lines(by, begin, end, place, instance)
    return [_rounded(line) for line in lines]


@routes.get("/cost/what-if")
async def what_if(
    verbs: Given,
    size: str,
    hours: float = Query(24.0, allow_inf_nan=False),
    days: float = Query(31.0, allow_inf_nan=False),
    spot: bool = False,
    ec2: bool = False,
) -> dict[str, Any]:
    plan = verbs.bills.what_if(size, hours, days, spot=spot, ec2=ec2)
    return {"prices": plan.prices, "scenarios": [_rounded(each) for each in plan.scenarios]}


def _rounded(row: Line | Scenario) -> dict[str, Any]:
    return {
        key: round(value, DIGITS) if isinstance(value, float) else value
        for key, value in asdict(row).items()
    }
