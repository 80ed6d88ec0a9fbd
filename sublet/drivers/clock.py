"""The host's clocks: read, and the wall clock waited for."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from sublet.domain.meter import Reading
from sublet.drivers import linux
from sublet.drivers.descriptors import closing, ready


async def until(moment: float) -> None:
    """Return when the wall clock shows `moment` (seconds since the epoch), or is past it.

    The kernel wakes us: also when the clock is set forward over it, and later when it is set
    back (timerfd_create(2), CLOCK_REALTIME with TFD_TIMER_ABSTIME).
    """
    with closing(linux.timerfd(max(moment, 0.001))) as fd:
        await ready(fd)


STEP = 1.0
"""Seconds that clocks may drift apart by themselves; by more, the wall clock was set."""


async def until_promised(moment: float) -> None:
    """Return when as much time has passed as lies between now and `moment` of the wall clock, to
    whatever that is set meanwhile: two minutes that were promised are two minutes. Time that the
    host sleeps counts (CLOCK_BOOTTIME). Where nobody sets it, not before `moment`.
    """
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + max(0.0, moment - time.time())
    with closing(linux.timerfd(max(end, 0.001), boot=True)) as fd:
        await ready(fd)
    if 0 < moment - time.time() < STEP:
        await until(moment)


FAR = 10.0 * 366 * 86400
"""Seconds that stand for ever."""


async def until_or_set(moment: float | None, now: float) -> None:
    """As `until`, and earlier where the clock is set: what is due may be another thing then. With
    None only that; `now` is what the clock shows."""
    with closing(linux.timerfd(max(moment or now + FAR, 0.001), or_set=True)) as fd:
        await ready(fd)


def read() -> Reading:
    """What the clocks show now."""
    return Reading(time.time(), time.monotonic(), _boot())


@functools.cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
