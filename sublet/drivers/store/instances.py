"""Instances and events in the database, as typed rows."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from sublet.domain.errors import NameInUse
from sublet.domain.event import Event
from sublet.domain.health import Health
from sublet.domain.instance import Instance, State
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database

_SPEC = TypeAdapter(InstanceSpec)
_COLUMNS = tuple(field.name for field in fields(Instance))
_INSERT = (
    f"INSERT INTO instances ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)
_UPDATE = (
    f"UPDATE instances SET {', '.join(f'{name} = :{name}' for name in _COLUMNS)} WHERE id = :id"
)


class InstanceStore:
    """The rows of `instances` and `events`, and single `settings`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, instance: Instance) -> None:
        """Insert a row; NameInUse where another instance has its name."""
        self._write(_INSERT, instance)

    def update(self, instance: Instance) -> None:
        """Write the whole row; NameInUse where another instance has its name."""
        self._write(_UPDATE, instance)

    def _write(self, statement: str, instance: Instance) -> None:
        try:
            self._db.connection.execute(statement, _row(instance))
        except sqlite3.IntegrityError as error:
            if "name" in str(error):
                raise NameInUse(f"The name '{instance.name}' is in use.") from error
            raise

    def delete(self, instance_id: str) -> None:
        self._db.connection.execute("DELETE FROM instances WHERE id = ?", (instance_id,))

    def get(self, instance_id: str) -> Instance | None:
        cursor = self._db.connection.execute("SELECT * FROM instances WHERE id = ?", (instance_id,))
        row = cursor.fetchone()
        return _instance(row) if row else None

    def find(self, text: str) -> list[Instance]:
        """The instance of this name, else those whose ids begin with `text`."""
        execute = self._db.connection.execute
        rows = execute("SELECT * FROM instances WHERE name = ? OR id = ?", (text, text)).fetchall()
        if not rows and text:
            length = len(text)
            rows = execute(
                "SELECT * FROM instances WHERE substr(id, 1, ?) = ?", (length, text)
            ).fetchall()
        return [_instance(row) for row in rows]

    def all(self) -> list[Instance]:
        """All instances, the oldest first."""
        rows = self._db.connection.execute("SELECT * FROM instances ORDER BY created, rowid")
        return [_instance(row) for row in rows]

    def slots(self) -> set[int]:
        """The slot numbers that instances have."""
        rows = self._db.connection.execute("SELECT slot FROM instances")
        return {int(row["slot"]) for row in rows}

    def add_event(self, event: Event) -> None:
        self._db.connection.execute(
            "INSERT INTO events (time, type, instance, detail) VALUES (?, ?, ?, ?)",
            (event.time, event.type, event.instance, json.dumps(dict(event.detail))),
        )

    def forget_events(self, before: float) -> None:
        """Delete the events that are older than `before` (seconds since the epoch)."""
        self._db.connection.execute("DELETE FROM events WHERE time < ?", (before,))

    def events(self, since: float) -> list[Event]:
        """Events from `since` (seconds since the epoch) on, the oldest first."""
        rows = self._db.connection.execute(
            "SELECT * FROM events WHERE time >= ? ORDER BY id", (since,)
        )
        return [
            Event(row["time"], row["type"], row["instance"], json.loads(row["detail"]))
            for row in rows
        ]

    def setting(self, key: str) -> str:
        row = self._db.connection.execute(
            "SELECT value FROM settings WHERE key = ?", (key,)
        ).fetchone()
        return str(row["value"]) if row else ""

    def set_setting(self, key: str, value: str) -> None:
        self._db.connection.execute(
            "INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (key, value)
        )


def _row(instance: Instance) -> dict[str, Any]:
    row = {name: getattr(instance, name) for name in _COLUMNS}
    return {
        **row,
        "spec": _SPEC.dump_json(instance.spec),
        "state": instance.state.value,
        "health": instance.health.value,
    }


def _instance(row: sqlite3.Row) -> Instance:
    values = dict(row)
    values["spec"] = _SPEC.validate_json(values["spec"])
    values["state"] = State(values["state"])
    values["health"] = Health(values["health"])
    values["kept"], values["wanted"] = bool(values["kept"]), bool(values["wanted"])
    return Instance(**values)
