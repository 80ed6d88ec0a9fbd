"""The steps of a request: where its milliseconds go, and where a crash may fall.

With SUBLET_TRACE=1 in the daemon's environment each request writes one JSON line into
RUN/trace.jsonl. Times are milliseconds of CLOCK_MONOTONIC, which every process of the host
shares: `begin` and `end` of the request, and of each step, which may be nested in another or
run beside it. Without it a step costs a microsecond.

With SUBLET_FAULT=REQUEST/STEP:before (or :after) the daemon kills itself there, so that tests
show what the next one makes of it: `start/network:after`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

MAXIMUM = 16 << 20
"""Bytes after which the file begins anew; the one before is kept as trace.jsonl.1."""

T = TypeVar("T")
_NOTHING: AbstractContextManager[None] = nullcontext()
_request: ContextVar[_Request | None] = ContextVar("request", default=None)


@dataclass(slots=True)
class _Request:
    name: str
    instance: str
    begin: float
    steps: list[tuple[str, float, float]] = field(default_factory=list)


class _Writer:
    """The file, once `start` has named it, and the point at which to die."""

    path: Path | None = None
    fault: str = ""


def start(directory: Path) -> None:
    """Trace into `directory`, if the environment asks for it."""
    wanted = os.environ.get("SUBLET_TRACE", "") not in ("", "0")
    _Writer.path = directory / "trace.jsonl" if wanted else None
    _Writer.fault = os.environ.get("SUBLET_FAULT", "")


def request(name: str, instance: str = "") -> AbstractContextManager[None]:
    """A request begins; it ends, and is written, with the block. The steps of all tasks that
    are started in the block are its own."""
    return _traced(name, instance) if _Writer.path or _Writer.fault else _NOTHING


def step(name: str) -> AbstractContextManager[None]:
    """A step of the request that this task works for."""
    current = _request.get()
    return _timed(name, current) if current else _NOTHING


async def timed(name: str, work: Awaitable[T]) -> T:
    """`work`, as a step."""
    with step(name):
        return await work


def about(instance: str) -> None:
    """The request turns out to be about this instance."""
    current = _request.get()
    if current:
        current.instance = instance


@contextmanager
def _traced(name: str, instance: str) -> Iterator[None]:
    current = _Request(name, instance, _now())
    token = _request.set(current)
    try:
        yield
    finally:
        _request.reset(token)
        _write(current)


@contextmanager
def _timed(name: str, current: _Request) -> Iterator[None]:
    begin = _now()
    _fail(f"{current.name}/{name}:before")
    try:
        yield
    finally:
        _fail(f"{current.name}/{name}:after")
        current.steps.append((name, begin, _now()))


def _fail(point: str) -> None:
    if point == _Writer.fault:
        os.kill(os.getpid(), signal.SIGKILL)


def _now() -> float:
    return round(time.monotonic() * 1000, 3)


def _write(done: _Request) -> None:
    path = _Writer.path
    if path is None:
        return
    steps = [{"name": name, "begin": begin, "end": end} for name, begin, end in done.steps]
    line = {"request": done.name, "instance": done.instance, "begin": done.begin, "end": _now()}
    with open(path, "a", opener=_private) as file:
        if file.tell() > MAXIMUM:
            path.replace(path.with_name(f"{path.name}.1"))
        file.write(json.dumps({**line, "steps": steps}) + "\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
