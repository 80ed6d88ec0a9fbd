"""What happened, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """`time` in seconds since the epoch; `type` such as `instance.running`; `instance` an id,
    empty where it concerns none."""

    time: float
    type: str
    instance: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)
