"""Instances and events in the database, as typed rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from sublet.domain.errors import NameInUse
from sublet.domain.event import Event
from sublet.domain.health import Health
from sublet.domain.instance import Instance, State
from sublet.domain.ledger import Ledger
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

Listener = Callable[[Instance | None, Instance | None], None]
"""Is told of a row's change, in the same breath: as it was, and as it is; None: there is none."""


class InstanceStore:
    """The rows of `instances` and `events`, and single `settings`.

    The daemon is the one that writes, so it keeps the instances in memory too: whatever asks for
    all of them, as each start does, would otherwise take longer with every one that there is.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        rows = database.connection.execute("SELECT * FROM instances ORDER BY created, rowid")
        self._instances = {instance.id: instance for instance in map(_instance, rows)}
        self.witness: Callable[[Instance | None, Instance | None], None] = lambda old, new: None
        """Is told, in the transaction, of each row as it was and as it is going to be."""
        self.undone: Callable[[str], None] = lambda instance_id: None
        """Is told that what the witness was told last of a row has not come to pass."""
        self.ledger = Ledger()
        for instance in self._instances.values():
            self.ledger.change(None, instance)
        self.listeners: list[Listener] = [self.ledger.change]

    def add(self, instance: Instance) -> None:
        """Insert a row; NameInUse where another instance has its name."""
        self._write(_INSERT, None, instance)
        self._changed(instance.id, instance)

    def update(self, instance: Instance) -> None:
        """Write the whole row, if there is one; NameInUse where another instance has its name."""
        if old := self._instances.get(instance.id):
            self._write(_UPDATE, old, instance)
            self._changed(instance.id, instance)

    def _write(self, statement: str, old: Instance | None, new: Instance) -> None:
        try:
            with self._db.transaction() as connection:
                connection.execute(statement, _row(new))
                self.witness(old, new)
        except BaseException as error:
            self.undone(new.id)
            if isinstance(error, sqlite3.IntegrityError) and "name" in str(error):
                raise NameInUse(f"The name '{new.name}' is in use.") from error
            raise

    def delete(self, instance_id: str) -> None:
        old = self._instances.get(instance_id)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM instances WHERE id = ?", (instance_id,))
            self.witness(old, None)
        self._changed(instance_id, None)

    def _changed(self, instance_id: str, new: Instance | None) -> None:
        old = self._instances.pop(instance_id, None) if new is None else self.get(instance_id)
        if new is not None:
            if old and old.created != new.created:  # it comes last now
                self._instances.pop(instance_id)
            self._instances[instance_id] = new
        for listener in self.listeners:
            listener(old, new)

    def together(self, work: Callable[[], None]) -> None:
        """Do `work` in one transaction."""
        with self._db.transaction():
            work()

    def get(self, instance_id: str) -> Instance | None:
        return self._instances.get(instance_id)

    def find(self, text: str) -> list[Instance]:
        """The instance of this name or id, else those whose ids begin with `text`."""
        rows = self._instances.values()
        found = [row for row in rows if text in (row.name, row.id)]
        if not found and text:
            found = [row for row in rows if row.id.startswith(text)]
        return found

    def pooled(self) -> list[Instance]:
        """Those that wait in a pool."""
        return [row for row in self._instances.values() if row.pool]

    def all(self) -> list[Instance]:
        """All instances, the oldest first."""
        return list(self._instances.values())

    def slots(self) -> set[int]:
        """The slot numbers that instances have."""
        return {instance.slot for instance in self._instances.values()}

    def add_event(self, event: Event) -> int:
        """Write the event; its id."""
        cursor = self._db.connection.execute(
            "INSERT INTO events (time, type, instance, detail) VALUES (?, ?, ?, ?)",
            (event.time, event.type, event.instance, json.dumps(dict(event.detail))),
        )
        return int(cursor.lastrowid or 0)

    def forget_events(self, before: float) -> None:
        """Delete the events that are older than `before` (seconds since the epoch)."""
        self._db.connection.execute("DELETE FROM events WHERE time < ?", (before,))

    def events(self, *, after: int = 0, since: float = 0.0, limit: int = -1) -> list[Event]:
        """Events with ids above `after`, from `since` (seconds since the epoch) on, the oldest
        first, `limit` at most."""
        rows = self._db.connection.execute(
            "SELECT * FROM events WHERE id > ? AND time >= ? ORDER BY id LIMIT ?",
            (after, since, limit),
        )
        return [
            Event(row["time"], row["type"], row["instance"], json.loads(row["detail"]), row["id"])
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
