"""The catalogue on disk: the Containerfiles that came with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sublet.domain import catalog
from sublet.domain.catalog import Entry, Offer
from sublet.drivers.registry import buildah

PLACE = Path(__file__).parents[1] / "catalog"


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry, its Containerfile, and what that offers."""

    entry: Entry
    text: str
    offer: Offer


def directory(entry: Entry) -> Path:
    """Where an entry's Containerfile and what it copies are."""
    return PLACE / entry.name


def shown(entry: Entry) -> Shown:
    """An entry with what its Containerfile says."""
    place = directory(entry)
    text = buildah.read_file(buildah.find_file(place, None))
    return Shown(entry, text, catalog.offer(text))
