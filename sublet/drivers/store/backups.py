"""Backups in the database, as typed rows."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, fields

from sublet.domain.backup import Backup
from sublet.drivers.store.database import Database

_PLACES = ", ".join("?" for _ in fields(Backup))


class BackupStore:
    """The rows of `backups`: those that this host has made."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, backup: Backup) -> None:
        """Insert or replace a row."""
        self._db.connection.execute(
            f"INSERT OR REPLACE INTO backups VALUES ({_PLACES})", astuple(backup)
        )

    def get(self, backup_id: str) -> Backup | None:
        return next((backup for backup in self.every() if backup.id == backup_id), None)

    def every(self) -> list[Backup]:
        """All backups, the newest first."""
        rows = self._db.connection.execute("SELECT * FROM backups ORDER BY time DESC, id")
        return [_backup(row) for row in rows]

    def of(self, instance_id: str) -> list[Backup]:
        """An instance's backups, the newest first."""
        return [backup for backup in self.every() if backup.instance == instance_id]

    def delete(self, backup_id: str) -> None:
        self._db.connection.execute("DELETE FROM backups WHERE id = ?", (backup_id,))


def _backup(row: sqlite3.Row) -> Backup:
    values = dict(row)
    values |= {key: bool(values[key]) for key in ("complete", "staged")}
    return Backup(**values)
