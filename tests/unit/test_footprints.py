"""The memory of processes, as the host counts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

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


SHARER = """
import mmap, sys
size = int(sys.argv[1])
shared = mmap.mmap(-1, size or 4096)     # anonymous and shared
shared.write(b"x" * size)
print("ready", flush=True)
sys.stdin.read()
"""


def process(fd: int, own: int, shared: int) -> AbstractContextManager[int]:
    """One with `own` bytes of memory and a private mapping of a memory file, half written to."""
    return running(HOLDER, fd, own, shared, pass_fds=[fd])


def sharing(size: int) -> AbstractContextManager[int]:
    """One with so many bytes of memory that its children would share."""
    return running(SHARER, size)


@contextmanager
def running(code: str, *numbers: int, pass_fds: Sequence[int] = ()) -> Iterator[int]:
    """A process of its own, until the block ends: this one maps what other tests have left."""
    argv = [sys.executable, "-I", "-S", "-c", code, *map(str, numbers)]
    holder = subprocess.Popen(
        argv, pass_fds=pass_fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    with sharing(20 * MIB) as pid, sharing(0) as other:
        (with_it, files), (without, none) = footprint.memory([pid]), footprint.memory([other])
    assert files == none == {}, "what others map is theirs alone"
    assert 19 * MIB < with_it - without < 21 * MIB


def test_a_process_that_has_gone_counts_as_nothing() -> None:
    assert footprint.memory([1 << 22]) == (0, {})
