"""An instance on its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sublet.domain.egress import Egress
from sublet.domain.ports import Port


@dataclass(frozen=True, slots=True)
class Place:
    """An instance's place on one network: eth<interface>, its address and its names there."""

    address: str
    names: tuple[str, ...] = ()
    network: int = 0
    interface: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What `Network.repair` needs to know of an instance that is up.

    `places` begin with that whose address its ports lead to, and whose gateway resolves its names.
    `ports` as `publish` returned them; `netns` is its network namespace's file, by which a
    cable that is gone is laid again. `egress`: whom it may connect to (domain/egress.py).
    """

    instance_id: str
    places: tuple[Place, ...]
    ports: tuple[Port, ...] = ()
    netns: Path | None = None
    egress: Egress | None = None

    @property
    def address(self) -> str:
        """Where its ports lead to; empty for an instance that is on no network."""
        return self.places[0].address if self.places else ""
