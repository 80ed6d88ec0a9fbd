"""The memory of processes, as the host counts it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sublet.drivers import footprint

MIB = 1 << 20

HOLDER = """
import mmap, os, sys
fd, own, shared = (int(word) for word in sys.argv[1:])
mine = b"x" * own
theirs = mmap.mmap(fd, shared, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
theirs[: shared // 2] = b"y" * (shared // 2)   # copied for this process alone
sum(theirs[::4096])                            # the rest is only read
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(fd: int, own: int, shared: int) -> Iterator[int]:
    """One with `own` bytes of memory and a private mapping of a memory file, half written to."""
    argv = [sys.executable, "-I", "-S", "-c", HOLDER, str(fd), str(own), str(shared)]
    holder = subprocess.Popen(
        argv, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder.pid


def test_a_memory_file_counts_once_and_what_was_copied_of_it_for_each() -> None:
    fd = os.memfd_create("sublet-template", 0)
    os.write(fd, b"z" * (32 * MIB))
    try:
        with process(fd, 10 * MIB, 32 * MIB) as one, process(fd, 40 * MIB, 32 * MIB) as two:
            first, shared = footprint.memory([one])
            both, together = footprint.memory([one, two])
            (size,) = shared.values()
            assert shared == together  # the same file
            assert 32 * MIB <= size < 33 * MIB
            # 10 MiB of its own and the 16 that it wrote to; Python itself is a few
            assert 26 * MIB <= first < 40 * MIB
            assert 82 * MIB <= both < 110 * MIB
    finally:
        os.close(fd)


def test_memory_that_processes_share_otherwise_is_theirs() -> None:
    with mmap.mmap(-1, 20 * MIB) as shared:
        shared.write(b"x" * len(shared))
        before, files = footprint.memory([os.getpid()])
    after, other_files = footprint.memory([os.getpid()])
    assert files == other_files, "what others map is theirs alone"
    assert before - after > 19 * MIB


def test_a_process_that_has_gone_counts_as_nothing() -> None:
    assert footprint.memory([1 << 22]) == (0, {})
