"""Snapshots in the database, as typed rows."""

from __future__ import annotations

import json
import sqlite3

from sublet.domain.snapshots import Snapshot
from sublet.drivers.store.database import Database


class SnapshotStore:
    """The rows of `snapshots`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, snapshot: Snapshot) -> None:
        """Insert or replace a row."""
        self._db.connection.execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(snapshot.id, snapshot.name, snapshot.instance, snapshot.created),
                *(int(snapshot.complete), json.dumps(snapshot.volumes), int(snapshot.memory)),
            ),
        )

    def every(self) -> list[Snapshot]:
        """All snapshots, the newest first."""
        rows = self._db.connection.execute("SELECT * FROM snapshots ORDER BY created DESC, id")
        return [_snapshot(row) for row in rows]

    def of(self, instance_id: str) -> list[Snapshot]:
        """An instance's snapshots, the newest first."""
        return [snapshot for snapshot in self.every() if snapshot.instance == instance_id]

    def delete(self, snapshot_id: str) -> None:
        self._db.connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,))


def _snapshot(row: sqlite3.Row) -> Snapshot:
    values = dict(row)
    values |= {key: bool(values[key]) for key in ("complete", "memory")}
    values["volumes"] = tuple(json.loads(values["volumes"]))
    return Snapshot(**values)
