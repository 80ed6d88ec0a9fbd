"""The memory of processes, as the host's kernel counts it (proc(5), smaps_rollup)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

MEMFD = "/memfd:"
"""How the names of memory files begin (memfd_create(2))."""


def memory(pids: Iterable[int]) -> tuple[int, dict[str, int]]:
    """Bytes of the processes' proportional set size, and of the memory files that they map.

    Of a process that has a memory file, shared memory is not in the first number: it is counted
    as a whole in the second, by the file's inode, whoever maps how much of it. A process that
    has ended meanwhile counts as nothing.
    """
    own, shared = 0, {}
    for pid in pids:
        files = _memory_files(Path("/proc", str(pid), "fd"))
        sizes = _rollup(pid)
        own += sizes.get("Pss", 0) - (sizes.get("Pss_Shmem", 0) if files else 0)
        shared.update(files)
    return own, shared


def _rollup(pid: int) -> dict[str, int]:
    """The fields of smaps_rollup, in bytes."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        words = (line.split() for line in lines[1:])
        return {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in words if len(parts) == 3}
    return {}


def _memory_files(directory: Path) -> dict[str, int]:
    """Allocated bytes of the memory files that a process has open, by name and inode."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                if os.readlink(entry.path).startswith(MEMFD):
                    status = os.stat(entry.path)
                    found[f"memory file {status.st_ino}"] = status.st_blocks * 512
    return found
