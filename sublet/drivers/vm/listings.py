"""What our program in a guest (`guest/copy.c`) lists: its processes, and what it has changed of
its image's files. All of it was said by the tenant's machine: it is bounded, and believed nothing
but what it says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sublet.domain.changes import Made
from sublet.domain.errors import CopyFailed
from sublet.drivers.listing import Process, user_names
from sublet.drivers.vm.files import GuestFiles

ADDED, CHANGED, DELETED = "ACD"
Change = tuple[str, str]
_MAX_PATH, _MAX_DEPTH, _MAX_LIST = 1 << 19, 1 << 12, 1 << 20
_PATIENCE = 30.0
"""Seconds that a guest has to list its processes."""

_FACTS = re.compile(r"([dfw])([df-])([=!])([=!])([0+])(/.*)", re.DOTALL)
_PROCESS = re.compile(r"(\d{1,9}) (\d{1,9}) (\w) (\d{1,10}) (\d{1,18}) (\d{1,18})")


async def processes(files: GuestFiles) -> list[Process]:
    """The processes of a running guest; users by the names that its own /etc/passwd gives."""
    async with files.working("processes") as tool:
        answer = await tool.answer(_MAX_LIST, _PATIENCE)
    return await asyncio.to_thread(parsed, answer)


def parsed(answer: bytes) -> list[Process]:
    """What `files processes` wrote."""
    passwd, *texts = answer.decode(errors="replace").rstrip("\0").split("\0")
    names, found = user_names(passwd), []
    for numbers, command in zip(texts[::2], texts[1::2], strict=False):
        match = _PROCESS.fullmatch(numbers)
        if match is None:
            raise CopyFailed("The machine's list of its processes makes no sense.")
        pid, parent, uid, ticks, memory = (int(match[n]) for n in (1, 2, 4, 5, 6))
        user = names.get(uid, str(uid))
        cpu = ticks / 100
        found.append(Process(user, pid, 0, parent, match[3], cpu, memory, command))
    here = {process.pid for process in found}
    return sorted(
        (_orphaned(process) if process.parent not in here else process for process in found),
        key=lambda process: process.pid,
    )


def _orphaned(process: Process) -> Process:
    """Its parent is the agent, or the kernel."""
    return Process(
        process.user,
        process.pid,
        0,
        0,
        process.state,
        process.cpu,
        process.memory,
        process.command,
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """A name in the writable layer. `new`: d(irectory), f(ile) or w(hited out), `old`: what the
    image has there, - for nothing."""

    new: str
    old: str
    same: bool
    same_time: bool
    empty: bool
    path: str


def facts(text: str) -> Facts:
    """What one text of `files compare` says."""
    match = _FACTS.fullmatch(text)
    if match is None:
        raise CopyFailed("The machine's list of its changes makes no sense.")
    new, old, same, time, size, path = match.groups()
    return Facts(new, old, same == "=", time == "=", size == "0", path)


class Changes:
    """Makes changes of facts, as `container/difference.py` has them: a directory is told before
    what is in it, and only if it, or anything in it, has changed. `own`: files that the host has
    written."""

    def __init__(self, made: Made, own: frozenset[str]) -> None:
        self._made, self._own = made, own
        self._at = ""
        self._pending: list[tuple[int, str]] = []
        """Directories on the way to `_at`: of each where its path ends in that, and the change
        that it is told as when something in it is; empty when it has been."""

    def of(self, fact: Facts) -> Iterator[Change]:
        """What is to be told now that this is known."""
        while self._pending and not self._is_below(fact.path, self._pending[-1][0]):
            self._pending.pop()
        kind = self._kind(fact)
        if kind:
            for number, (end, change) in enumerate(self._pending):
                if change:
                    yield change, self._at[:end]
                    self._pending[number] = (end, "")
            yield kind, fact.path
        if fact.new == "d":
            if len(self._pending) > _MAX_DEPTH:
                raise CopyFailed("The machine's list of its changes makes no sense.")
            below = CHANGED if fact.old == "d" else ADDED
            self._pending.append((len(fact.path), "" if kind else below))
            self._at = fact.path

    def _is_below(self, path: str, end: int) -> bool:
        return path[end : end + 1] == "/" and path[:end] == self._at[:end]

    def _kind(self, fact: Facts) -> str:
        points, path = self._made.points, fact.path
        if fact.new == "w":
            return DELETED if fact.old != "-" else ""
        kind = CHANGED if fact.old != "-" else ADDED
        if path in self._own:
            return ""
        if fact.new == "f":
            return "" if kind == ADDED and path in points and fact.empty else kind
        if fact.old == "d":
            same_time = fact.same_time or path in self._made.parents
            return "" if fact.same and same_time else kind
        return "" if kind == ADDED and path in points else kind


@dataclass(frozen=True, slots=True)
class Comparing:
    """A program in the guest that compares its writable layer with the image."""

    texts: AsyncIterator[str]
    changes: Changes

    async def stream(self) -> AsyncIterator[bytes]:
        """The changes, one JSON object a line."""
        async for text in self.texts:
            lines = (
                json.dumps({"kind": kind, "path": path}) + "\n"
                for kind, path in self.changes.of(facts(text))
            )
            if data := "".join(lines):
                yield data.encode()


@asynccontextmanager
async def comparing(files: GuestFiles, made: Made) -> AsyncIterator[Comparing]:
    """What the guest has changed of its image's files."""
    async with files.working("compare", "disk/upper", "image") as tool:
        yield Comparing(_texts(tool.output()), Changes(made, frozenset(files.own)))


async def _texts(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The texts in a stream, each ended by a zero byte."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\0")
        if len(rest) > _MAX_PATH:
            raise CopyFailed("The machine's list of its changes makes no sense.")
        for text in whole:
            yield os.fsdecode(text)
