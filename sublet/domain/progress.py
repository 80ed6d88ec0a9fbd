"""What is told of work while it goes on."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str], None]
"""Takes a line about how far it is, or what it waits for."""


def silent(_line: str) -> None:
    """A `Report` of which nobody wants to know."""
