"""Long actions: started, watched, cancelled."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sublet.domain.errors import Cancelled, NoSuchOperation, SubletError, unexpected
from sublet.domain.progress import Report
from sublet.engine.tasks import Tasks

Work = Callable[[Report], Awaitable[Any]]
KEPT = 100
_REST = defaultdict(
    lambda: "what it had made is gone",
    pull="what it has fetched is kept for the next one",
    backup="what has arrived is kept for the next one",
)
"""What becomes of the work of a cancelled operation, by its kind."""


class Progress(StrEnum):
    """Where an operation stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Operation:
    """One long action: `result` when done, `error` when failed or cancelled."""

    id: str
    kind: str
    state: Progress = Progress.RUNNING
    lines: list[str] = field(default_factory=list)
    result: Any = None
    error: SubletError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None

    def report(self, line: str) -> None:
        """Add a line of progress."""
        self.lines.append(line)
        self.changed.set()

    def finish(
        self, state: Progress, *, result: Any = None, error: SubletError | None = None
    ) -> None:
        self.state, self.result, self.error = state, result, error
        self.changed.set()

    async def follow(self) -> AsyncIterator[str]:
        """Every line, from the first on, until the end."""
        seen = 0
        while True:
            self.changed.clear()
            ended = self.state is not Progress.RUNNING
            for line in self.lines[seen:]:
                seen += 1
                yield line
            if ended:
                return
            await self.changed.wait()


class Operations:
    """All operations of one daemon, those that ended lately too."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._all: dict[str, Operation] = {}

    def start(self, kind: str, work: Work) -> Operation:
        """Begin `work`, which reports its progress line by line."""
        operation = Operation(secrets.token_hex(6), kind)
        self._all[operation.id] = operation
        while len(self._all) > KEPT:
            ended = next((k for k, o in self._all.items() if o.state is not Progress.RUNNING), None)
            if ended is None:
                break
            del self._all[ended]
        operation.task = self._tasks.start(f"{kind} {operation.id}", self._run(operation, work))
        return operation

    @staticmethod
    async def _run(operation: Operation, work: Work) -> None:
        try:
            result = await work(operation.report)
        except SubletError as error:
            operation.finish(Progress.FAILED, error=error)
        except asyncio.CancelledError:
            cancelled = Cancelled(f"The {operation.kind} was cancelled; {_REST[operation.kind]}.")
            operation.finish(Progress.CANCELLED, error=cancelled)
        except BaseException as error:
            operation.finish(Progress.FAILED, error=unexpected(error, f"The {operation.kind}"))
            raise
        else:
            operation.finish(Progress.DONE, result=result)

    def list(self) -> list[Operation]:
        return list(self._all.values())

    async def cancel(self, operation_id: str) -> None:
        """End an operation and wait until it has cleaned up."""
        operation = self._all.get(operation_id)
        if operation is None or operation.task is None:
            raise NoSuchOperation(f"There is no operation '{operation_id}'.")
        operation.task.cancel()
        await asyncio.wait([operation.task])
