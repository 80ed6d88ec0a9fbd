"""Sizes that have names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from sublet.domain.errors import InvalidArgument
from sublet.domain.size import Size

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")

STANDARD: Mapping[str, str] = MappingProxyType(
    {
        "nano": "2x0.5",
        "micro": "2x1",
        "small": "2x2",
        "medium": "2x4",
        "large": "2x8",
        "xlarge": "4x16",
        "2xlarge": "8x32",
    }
)
"""What the names mean where the host's owner says nothing else: as of EC2's t3 instances."""


def parse_size_names(text: str) -> tuple[tuple[str, Size], ...]:
    """`tiny=0.5x0.25, dev=2x4`: names of the owner's own. Raises InvalidArgument."""
    found: dict[str, Size] = {}
    for item in text.replace(",", " ").split():
        name, equals, size = item.partition("=")
        if not equals or not _NAME.fullmatch(name) or _means_itself(name):
            raise InvalidArgument(
                f"sizes: '{item}' is malformed.", hint="Write tiny=0.5x0.25, dev=2x4"
            )
        found[name] = Size.parse(size)
    return tuple(found.items())


def size_names(own: tuple[tuple[str, Size], ...]) -> dict[str, Size]:
    """All names: the standard ones, and the owner's over them; by size."""
    found = {name: Size.parse(text) for name, text in STANDARD.items()} | dict(own)
    return dict(sorted(found.items(), key=lambda item: (item[1].cpus, item[1].memory, item[0])))


def resolve(text: str, own: tuple[tuple[str, Size], ...]) -> Size:
    """The size that a name, or a text such as `2x4`, means. Raises InvalidArgument."""
    names = size_names(own)
    if text in names:
        return names[text]
    if _means_itself(text):
        return Size.parse(text)
    raise InvalidArgument(
        f"There is no size '{text}'.",
        hint="Write vCPUs x GiB, such as 2x4; `sublet sizes` lists the names.",
    )


def _means_itself(text: str) -> bool:
    try:
        Size.parse(text)
    except InvalidArgument:
        return False
    return True
