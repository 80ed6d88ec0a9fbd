"""What is told of a build that is on the way to something else: its steps, not what they write."""

from __future__ import annotations

import re
from collections import deque

WIDTH = 100
"""Of a step's line; it may be a whole script."""

KEPT = 10_000
"""Lines that are kept of a build, for when it fails."""

_STEP = re.compile(r"((?:[\w-]+: )?)(?:\[\d+/\d+\] )?STEP \d+/\d+: (\w*)")
_WORK = frozenset(("FROM", "RUN", "COPY", "ADD"))
"""Instructions that take time; the others only describe the image."""

_BUILT = "Packing the image"
"""Begins the line that follows the last one of a build."""


class Steps:
    """Builds as their lines come, each of them with its service's name before it, or without one.

    What the steps write is kept until all of them have succeeded.
    """

    def __init__(self) -> None:
        self._written: dict[str, deque[str]] = {}

    def shown(self, line: str) -> str:
        """What is to be shown of a line; empty: nothing."""
        if match := _STEP.match(line):
            self._written.setdefault(match[1], deque(maxlen=KEPT)).append(line)
            short = line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
            return short if match[2] in _WORK else ""
        name = next(filter(line.startswith, self._written), None)
        if name is None:
            return line
        if line.startswith(f"{name}{_BUILT}"):
            del self._written[name]
            return line
        self._written[name].append(line)
        return ""

    def failed(self) -> list[str]:
        """All that was written by the build that failed, where its last words tell which it is;
        else by all that are not at their end."""
        builds = self._written.items()
        broken = [lines for name, lines in builds if _has_error(name, lines)]
        return [line for lines in broken or self._written.values() for line in lines]


def _has_error(name: str, lines: deque[str]) -> bool:
    return any(line.startswith(f"{name}Error: ") for line in lines)
