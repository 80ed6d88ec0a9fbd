"""What the tests of the market share: a small host of its own, and what is asked of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from clilab import PROGRAMS, small_tree
from conftest import Sublet, eventually

LOOP = ("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
"""Ends with 3 when it is asked to."""

NOTICE = 2.0
LATE = 10.0
"""Seconds by which a busy machine may be late."""

IMAGE = "small"


@contextmanager
def small_host(memory: int = 2 << 30, **extra: str) -> Iterator[Sublet]:
    """A daemon that sells so many bytes of memory, and gives two seconds' notice."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own = {"SUBLET_RESERVE": str(total - memory), "SUBLET_NOTICE": f"{NOTICE:g}s"}
    own |= {"SUBLET_PRICE_LAG": "0s", "SUBLET_ACCELERATION": "tcg", **extra}
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")), own)
    tree = small_tree(sublet.home / "tree", (*PROGRAMS, "curl", "bash"))
    file = sublet.home / "small.sif"
    sublet.ok("pack", str(tree), "-o", str(file))
    sublet.ok("import", str(file), "--trust", "-t", IMAGE)
    try:
        yield sublet
        sublet.ok("host", "undrain")
        sublet.clean()
    finally:
        if left := sublet.ok("ps", "-aq").split():
            sublet.ok("rm", "-f", *left)
        sublet.close()


def spot(sublet: Sublet, name: str, *flags: str, memory: str = "512m") -> str:
    """Run a spot instance in the background; its id."""
    return sublet.ok("run", "-d", "--name", name, "--spot", "-m", memory, *flags, IMAGE, *LOOP)


def request(sublet: Sublet, name: str) -> dict[str, Any]:
    """The latest spot request of an instance of this name."""
    rows = sublet.json("spot", "ls", "--json")
    return next(row for row in rows if row["name"] == name)


def status(sublet: Sublet, name: str) -> tuple[str, str]:
    row = request(sublet, name)
    return row["state"], row["status"]


def states(sublet: Sublet) -> dict[str, str]:
    return {row["name"]: row["state"] for row in sublet.json("ps", "-a", "--json")}


def events(sublet: Sublet, kind: str, name: str) -> list[dict[str, Any]]:
    """What happened to the instances of this name, the oldest first."""
    rows = sublet.json("events", "--json", "--since", "10m", "--filter", f"event={kind}")
    return [row for row in rows if row["detail"].get("name") == name]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def late(sublet: Sublet, name: str) -> float:
    """Seconds between the deadline of an instance's notice and the reclaim."""
    notice, taken = events(sublet, "notice", name)[-1], events(sublet, "reclaim", name)[-1]
    return seconds(taken["time"]) - seconds(notice["detail"]["time"])


def tells(sublet: Sublet, name: str, *wanted: str) -> None:
    """Wait until the request of an instance has this state and status."""
    eventually(
        lambda: status(sublet, name) == wanted, lambda: f"{wanted}, not {status(sublet, name)}"
    )


def comes(sublet: Sublet, name: str, state: str, deadline: float = 30.0) -> None:
    """Wait until the instance is in this state; `gone` is one too."""
    eventually(lambda: states(sublet).get(name, "gone") == state, f"{name} is {state}", deadline)
