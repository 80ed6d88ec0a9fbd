"""An instance on the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sublet.domain.ports import Port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What `Network.repair` needs to know of an instance that is up.

    `ports` as `publish` returned them; `netns` is its network namespace's file, by which a
    cable that is gone is laid again.
    """

    instance_id: str
    address: str
    ports: tuple[Port, ...] = ()
    names: tuple[str, ...] = ()
    netns: Path | None = None
