"""Notices: what a spot instance is told before its capacity is taken back.

Source: EC2 User Guide, "Spot Instance interruption notices"; the actions are EC2's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.units import YEAR

LONGEST = YEAR
"""Seconds of notice that may be asked for at most."""


class Action(StrEnum):
    """What becomes of a spot instance at the deadline (EC2's instance interruption behaviour)."""

    STOP = "stop"
    HIBERNATE = "hibernate"
    TERMINATE = "terminate"


class Reason(StrEnum):
    """Why capacity is taken back. `rehearsal`: it is not; the tenant tries what would happen."""

    CAPACITY = "capacity"
    PRICE = "price"
    PRESSURE = "pressure"
    OWNER = "owner"
    REHEARSAL = "rehearsal"


@dataclass(frozen=True, slots=True)
class Notice:
    """`instance` is an id; `given` and `deadline` are seconds since the epoch: the action is
    taken at the deadline, not before."""

    instance: str
    action: Action
    reason: Reason
    given: float
    deadline: float
