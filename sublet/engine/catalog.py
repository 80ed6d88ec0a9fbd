"""The catalogue on disk: the Containerfiles that came with the package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sublet.domain import catalog
from sublet.domain.catalog import Entry, Offer
from sublet.domain.image import Image
from sublet.drivers.registry import buildah

PLACE = Path(__file__).parents[1] / "catalog"


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry, its Containerfile, what that offers, and the suites whose image is `here`."""

    entry: Entry
    text: str
    offer: Offer
    here: frozenset[str]


def directory(entry: Entry) -> Path:
    """Where an entry's Containerfile and what it copies are."""
    return PLACE / entry.name


def shown(entry: Entry, images: Iterable[Image] = ()) -> Shown:
    """An entry with what its Containerfile says; `images` are those on this host."""
    text = buildah.read_file(buildah.find_file(directory(entry), None))
    made = [image for image in images if image.config.labels.get(catalog.LABEL) == entry.name]
    chosen = [catalog.find(name) for image in made for name in image.names]
    here = frozenset(choice.suite for choice in chosen if choice and choice.entry == entry)
    return Shown(entry, text, catalog.offer(text), here)


def listing(images: Iterable[Image]) -> list[Shown]:
    """All entries."""
    known = list(images)
    return [shown(each, known) for each in catalog.ENTRIES]
