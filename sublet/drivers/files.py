"""Directories, and trees of files that strangers have made: removed whatever they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from sublet.drivers import run
from sublet.drivers.descriptors import DIRECTORY, opened


def entries(directory: Path) -> list[str]:
    """The names in a directory, in order; none where there is no such directory."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def sync(directory: Path) -> None:
    """See that the names in the directory are on the disk."""
    with opened(directory, DIRECTORY) as fd:
        os.fsync(fd)


async def remove(tree: Path) -> None:
    """Remove a tree. Idempotent.

    A tenant may have made directories deeper than Python's recursion (and more of them
    open at once than a process may have files): what it cannot remove, rm(1) can.
    """
    with contextlib.suppress(RecursionError):
        await asyncio.to_thread(shutil.rmtree, tree, ignore_errors=True)
    if tree.exists():
        await run.run(["rm", "--recursive", "--force", "--one-file-system", "--", str(tree)])
