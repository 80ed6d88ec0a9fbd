"""Backups as repositories tell of them, and what is told of those that were cut off."""

from __future__ import annotations

import asyncio

from sublet.domain.backup import Backup
from sublet.domain.errors import SubletError
from sublet.domain.units import format_bytes
from sublet.drivers.restic import Done, Kept

_LATEST = 4e10
"""Seconds since the epoch of what is taken for a time: the year 3237."""


def tags(backup: Backup) -> dict[str, str]:
    """What a snapshot in the repository says of the backup that it is."""
    return {
        "sublet": "1",
        "id": backup.id,
        "instance": backup.instance,
        "name": backup.name,
        "time": f"{backup.time:.6f}",
        "size": str(backup.size),
    }


def of_tags(found: Kept, address: str) -> Backup:
    """What a repository says of a backup; whoever has its password may have written that."""
    said = found.tags
    try:
        when, size = float(said.get("time", "")), int(said.get("size", ""))
    except ValueError:
        when, size = 0.0, 0
    if not (0 <= when <= _LATEST and 0 <= size < 1 << 63):
        when, size = 0.0, 0
    names = (said.get("id", ""), said.get("instance", ""), said.get("name", ""))
    backup_id, instance, name = (text if text.isprintable() else "" for text in names)
    return Backup(
        backup_id, address, instance, name, when, size, snapshot=found.snapshot, complete=True
    )


def missing(done: Done) -> str:
    """What has not arrived of a backup that was cut off."""
    if not done.total_bytes:
        return "all of it"
    left, total = done.total_bytes - done.bytes, done.total_bytes
    some = f"{done.total_files - done.files} of {done.total_files} files"
    return f"{format_bytes(max(0, left))} of {format_bytes(total)} ({some})"


def why(error: BaseException) -> str:
    """What cut it off."""
    if isinstance(error, asyncio.CancelledError):
        return "it was cut off"
    return error.message if isinstance(error, SubletError) else repr(error)
