"""Processes that are not our children: found again, and waited for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sublet.drivers.descriptors import closing, ready


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5), stat, field 22); 0: none.

    A pid and its start time together name one process; a zombie counts as gone.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether the process with this pid is still the one that started then."""
    return pid > 0 and started > 0 and start_time(pid) == started


async def ended(pid: int, started: int) -> None:
    """Return when that process has ended (pidfd_open(2))."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with closing(fd):
        if alive(pid, started):
            await ready(fd)


def send(pid: int, started: int, number: int) -> bool:
    """Send a signal to that process; False when it is gone, or was never there."""
    if pid <= 0:
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(pid, started):
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
