"""Spot requests: what a tenant asks for, and where the request stands.

Source: EC2 User Guide, "Spot Instance request status"; types, states and status codes are EC2's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import HibernateNeedsVm, InvalidArgument
from sublet.domain.notice import Action, Reason
from sublet.domain.signals import signal_number


@dataclass(frozen=True, slots=True)
class Spot:
    """How a spot instance is sold. `max_price` in dollars per hour, None: the on-demand price;
    `persistent`: it comes back when there is room again. At the notice its first process gets
    `notice_signal`, and `notice_exec` is run in it; empty: neither."""

    max_price: float | None = None
    on_reclaim: Action = Action.TERMINATE
    persistent: bool = False
    notice_signal: str = ""
    notice_exec: tuple[str, ...] = ()


def check_spot(spot: Spot, *, vm: bool, remove: bool) -> None:
    """Raises InvalidArgument, or HibernateNeedsVm, where it cannot be had of a `vm` or container
    that is, or is not, to be deleted when it ends (`remove`)."""
    if spot.max_price is not None and not 0 < spot.max_price < math.inf:
        raise InvalidArgument(
            f"{spot.max_price:g} is not a price.",
            hint="Write dollars per hour: --max-price 0.03; `sublet market` shows today's.",
        )
    if spot.on_reclaim is Action.HIBERNATE and not vm:
        raise HibernateNeedsVm(
            "A container cannot be hibernated when it is reclaimed.",
            hint="Add --vm, or give --on-reclaim stop.",
        )
    if spot.persistent and spot.on_reclaim is Action.TERMINATE:
        raise InvalidArgument(
            "A persistent request needs an instance that is still there when it comes back.",
            hint="Add --on-reclaim stop; or, for a VM, --on-reclaim hibernate.",
        )
    if remove and spot.on_reclaim is not Action.TERMINATE:
        raise InvalidArgument(
            f"--rm deletes what --on-reclaim {spot.on_reclaim} is to keep.",
            hint="Leave one of them out.",
        )
    if spot.notice_signal:
        signal_number(spot.notice_signal)
    if any("\0" in word for word in spot.notice_exec):
        raise InvalidArgument("The command of --notice-exec holds a zero byte.")


class Type(StrEnum):
    ONE_TIME = "one-time"
    PERSISTENT = "persistent"


class RequestState(StrEnum):
    OPEN = "open"
    ACTIVE = "active"
    DISABLED = "disabled"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Status(StrEnum):
    """Why a request is in its state."""

    PENDING_EVALUATION = "pending-evaluation"
    PENDING_FULFILLMENT = "pending-fulfillment"
    CAPACITY_NOT_AVAILABLE = "capacity-not-available"
    PRICE_TOO_LOW = "price-too-low"
    FULFILLED = "fulfilled"
    MARKED_FOR_STOP = "marked-for-stop"
    MARKED_FOR_TERMINATION = "marked-for-termination"
    STOPPED_BY_PRICE = "instance-stopped-by-price"
    STOPPED_BY_USER = "instance-stopped-by-user"
    STOPPED_NO_CAPACITY = "instance-stopped-no-capacity"
    TERMINATED_BY_PRICE = "instance-terminated-by-price"
    TERMINATED_BY_USER = "instance-terminated-by-user"
    TERMINATED_NO_CAPACITY = "instance-terminated-no-capacity"
    SYSTEM_ERROR = "system-error"
    CANCELLED_AND_RUNNING = "request-canceled-and-instance-running"
    CANCELLED_BEFORE = "canceled-before-fulfillment"


def _states() -> Mapping[Status, RequestState]:
    words = {
        "pending-": RequestState.OPEN,
        "capacity-": RequestState.OPEN,
        "price-": RequestState.OPEN,
        "fulfilled": RequestState.ACTIVE,
        "marked-": RequestState.ACTIVE,
        "instance-stopped-": RequestState.DISABLED,
        "instance-terminated-": RequestState.CLOSED,
        "system-error": RequestState.CLOSED,
        "request-canceled": RequestState.CANCELLED,
        "canceled-": RequestState.CANCELLED,
    }
    return {
        status: next(state for word, state in words.items() if status.startswith(word))
        for status in Status
    }


STATES = _states()
"""The state that each status belongs to."""

FINAL = frozenset({RequestState.CLOSED, RequestState.CANCELLED, RequestState.FAILED})
"""States that a request does not leave."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `instance` is an id, `name` its name; `max_price` in dollars per hour; times in
    seconds since the epoch. `wanted`: the market is to fill it when it can."""

    id: str
    instance: str
    name: str
    type: Type
    status: Status
    max_price: float
    created: float
    updated: float
    wanted: bool = False

    @property
    def state(self) -> RequestState:
        return STATES[self.status]


def marked(action: Action) -> Status:
    """The status during a notice."""
    terminates = action is Action.TERMINATE
    return Status.MARKED_FOR_TERMINATION if terminates else Status.MARKED_FOR_STOP


def taken(action: Action, reason: Reason) -> Status:
    """The status after a reclaim."""
    if action is Action.TERMINATE:
        by_price = reason is Reason.PRICE
        return Status.TERMINATED_BY_PRICE if by_price else Status.TERMINATED_NO_CAPACITY
    return Status.STOPPED_BY_PRICE if reason is Reason.PRICE else Status.STOPPED_NO_CAPACITY


def due(request: Request, *, price: float, now: float, rest: float) -> bool:
    """Whether the market fills it again at this `price`, if there is room. It rests for `rest`
    seconds first, and what was stopped by its price comes back a little below that: so that it
    does not come and go with every movement."""
    if not request.wanted or request.state not in (RequestState.OPEN, RequestState.DISABLED):
        return False
    if request.state is RequestState.DISABLED and now < request.updated + rest:
        return False
    margin = MARGIN if request.status is Status.STOPPED_BY_PRICE else 1.0
    return affordable(price, request.max_price * margin)


MARGIN = 0.95
"""Of its maximum price, the price at which a request that was stopped by it comes back."""


def affordable(price: float, maximum: float) -> bool:
    """Whether a price is not above the maximum, but for what floating point adds."""
    return price <= maximum * (1 + 1e-9)
