"""Something on the host that belongs to nobody."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leftover:
    """`kind` is what it is (mount, cgroup, link, rule, process, directory …), `owner` the id of
    the instance that it was made for, empty where that is not known."""

    kind: str
    name: str
    owner: str = ""
