"""The host's wall clock, waited for."""

from __future__ import annotations

import asyncio
import os

from sublet.drivers import linux


async def until(moment: float) -> None:
    """Return when the wall clock shows `moment` (seconds since the epoch), or is past it.

    The kernel wakes us: also when the clock is set forward over it, and later when it is set
    back (timerfd_create(2), CLOCK_REALTIME with TFD_TIMER_ABSTIME).
    """
    fd = linux.timerfd(max(moment, 0.001))
    try:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        loop.add_reader(fd, finish)
        try:
            await done
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)
