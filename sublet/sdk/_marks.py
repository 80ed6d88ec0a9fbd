"""How far a command got when: the client's side of the daemon's trace.

With SUBLET_TRACE=1 in its own environment too, a command adds a line to the daemon's
RUN/trace.jsonl, in the same form (drivers/trace.py). Its beginning is reckoned back from the
CPU time that the process has taken: Python does little else than compute until then.
"""

from __future__ import annotations

import itertools
import json
import os
import time

from sublet.sdk import _launch

_marks: list[tuple[str, float]] = []


def begin() -> None:
    """This process is one command: note how far it gets, if its environment asks for it."""
    if os.environ.get("SUBLET_TRACE", "") not in ("", "0"):
        _marks.append(("", time.monotonic() - time.process_time()))


def mark(name: str) -> None:
    """What is called `name` ends here, and the next step begins."""
    if _marks:
        _marks.append((name, time.monotonic()))


def write(request: str) -> None:
    """Add this command's line, if there is a daemon that traces."""
    if not _marks:
        return
    stamps = [(name, round(when * 1000, 3)) for name, when in _marks]
    steps = [
        {"name": name, "begin": begin, "end": end}
        for (_, begin), (name, end) in itertools.pairwise(stamps)
    ]
    line = {"request": request, "instance": "", "begin": stamps[0][1], "end": stamps[-1][1]}
    try:
        fd = os.open(f"{_launch.run_directory()}/trace.jsonl", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    os.write(fd, json.dumps({**line, "steps": steps}).encode() + b"\n")
    os.close(fd)
