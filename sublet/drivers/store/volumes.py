"""Volumes in the database, as typed rows."""

from __future__ import annotations

import json
import sqlite3

from sublet.domain.errors import VolumeExists
from sublet.domain.volumes import Volume
from sublet.drivers.store.database import Database


class VolumeStore:
    """The rows of `volumes`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, volume: Volume) -> None:
        """Insert a row; VolumeExists where there is one of this name."""
        labels = json.dumps(dict(volume.labels))
        row = (volume.name, volume.id, volume.created, volume.size, labels, int(volume.raw))
        try:
            self._db.connection.execute("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise VolumeExists(f"There is a volume '{volume.name}' already.") from error

    def get(self, name: str) -> Volume | None:
        cursor = self._db.connection.execute("SELECT * FROM volumes WHERE name = ?", (name,))
        row = cursor.fetchone()
        return _volume(row) if row else None

    def all(self) -> list[Volume]:
        """All volumes, by name."""
        return [
            _volume(r) for r in self._db.connection.execute("SELECT * FROM volumes ORDER BY name")
        ]

    def update(self, volume: Volume) -> None:
        """Write what may change of a volume: its size, and who writes its file system."""
        self._db.connection.execute(
            "UPDATE volumes SET size = ?, raw = ? WHERE name = ?",
            (volume.size, int(volume.raw), volume.name),
        )

    def delete(self, name: str) -> None:
        self._db.connection.execute("DELETE FROM volumes WHERE name = ?", (name,))


def _volume(row: sqlite3.Row) -> Volume:
    values = {**dict(row), "labels": json.loads(row["labels"]), "raw": bool(row["raw"])}
    return Volume(**values)
