"""Between blocking work on files and the loop: both run, and neither waits in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """What a blocking iterator gives, which waits in a thread."""
    iterator = iter(pieces)
    while (piece := await asyncio.to_thread(next, iterator, None)) is not None:
        yield piece


async def pause(seconds: float) -> None:
    """Let time pass."""
    await asyncio.sleep(seconds)


async def pulled(work: Callable[[Iterator[bytes]], T], pieces: AsyncIterator[bytes]) -> T:
    """The result of blocking `work`, in a thread, that takes the pieces as they come.

    Where the caller is cancelled, there are no more pieces, which ends the work.
    """
    loop = asyncio.get_running_loop()
    over = False

    async def following() -> bytes | None:
        return None if over else await anext(pieces, None)

    def blocking() -> Iterator[bytes]:
        while True:
            piece = asyncio.run_coroutine_threadsafe(following(), loop).result()
            if piece is None:
                return
            yield piece

    working = asyncio.ensure_future(asyncio.to_thread(work, blocking()))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        over = True
        await asyncio.wait([working])
        raise


class Background:
    """Work that goes on beside whatever its owner does."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.create_task(work(), name=name)

    async def ended(self, deadline: float) -> bool:
        """Whether it ends within so many seconds."""
        return bool((await asyncio.wait([self._task], timeout=deadline))[0])

    async def drop(self) -> None:
        """Nobody needs it any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def all_of(works: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """What they give, all at once; the first error ends them."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def accepts(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
