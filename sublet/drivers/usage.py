"""How much room directories take on the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def allocated(*directories: Path) -> int:
    """Bytes on the disk below the directories: holes are no bytes, and a file with several
    names counts once. What goes away meanwhile counts as nothing."""
    seen: set[tuple[int, int]] = set()
    total, pending = 0, [str(directory) for directory in directories]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += _blocks(entry, seen)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return total


def written_since(moment: float, *directories: Path) -> int:
    """Bytes on the disk of the files below the directories that were written after `moment`
    (seconds since the epoch), whole files, each once. Not for the event loop."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory in directories:
        for root, _, names in os.walk(directory):
            for name in names:
                with contextlib.suppress(OSError):
                    stat = os.lstat(os.path.join(root, name))
                    if stat.st_mtime > moment and (stat.st_dev, stat.st_ino) not in seen:
                        seen.add((stat.st_dev, stat.st_ino))
                        total += stat.st_blocks * 512
    return total


def _blocks(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> int:
    try:
        stat = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    if stat.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
        key = (stat.st_dev, stat.st_ino)
        if key in seen:
            return 0
        seen.add(key)
    return stat.st_blocks * 512
