"""Who is at work in an instance's file system: a copy, an export, a commit.

A visit has a task of its own, that holds what is mounted and the program at work. So it can be
ended at once by whoever ends the instance, though its reader may have stalled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from sublet.domain.errors import Cancelled, SubletError
from sublet.engine.tasks import Tasks

T = TypeVar("T")


class Visits:
    """The visits to all instances of one daemon."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._all: dict[str, set[asyncio.Task[None]]] = {}

    @contextlib.asynccontextmanager
    async def stay(
        self, instance_id: str, action: str, place: AbstractAsyncContextManager[T]
    ) -> AsyncIterator[T]:
        """Be in `place` until the block ends, or until `end`: then what is read there ends too,
        and the block's error is Cancelled."""
        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()
        task = self._tasks.start(f"{action} {instance_id}", _stay(place, entered, leave))
        mine = self._all.setdefault(instance_id, set())
        mine.add(task)
        try:
            await asyncio.wait({entered, task}, return_when=asyncio.FIRST_COMPLETED)
            if not entered.done():
                raise _ended(action)
            yield entered.result()
        except SubletError as error:
            raise _ended(action) if task.cancelled() or task.cancelling() else error from None
        finally:
            leave.set()
            if not entered.done():
                task.cancel()
            await asyncio.shield(asyncio.wait([task]))
            mine.discard(task)
            if not mine:
                self._all.pop(instance_id, None)

    async def end(self, instance_id: str) -> None:
        """End all visits to the instance; returns when they have let go of it."""
        tasks = list(self._all.get(instance_id, ()))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _stay(
    place: AbstractAsyncContextManager[T], entered: asyncio.Future[T], leave: asyncio.Event
) -> None:
    try:
        async with place as value:
            entered.set_result(value)
            await leave.wait()
    except SubletError as error:
        if entered.done():
            raise
        entered.set_exception(error)


def _ended(action: str) -> Cancelled:
    return Cancelled(
        f"The {action} was cut off: the instance has ended, or was removed.",
        hint="A stopped instance can be copied from and exported too.",
    )
