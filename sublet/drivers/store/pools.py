"""Warm pools in the database, as typed rows."""

from __future__ import annotations

import sqlite3

from pydantic import TypeAdapter

from sublet.domain.pools import Pool
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database

_SPEC = TypeAdapter(InstanceSpec)


class PoolStore:
    """The rows of `pools`, of which there are few: all are kept in memory, by name."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        rows = self._connection.execute("SELECT * FROM pools")
        self._pools = {pool.name: pool for pool in map(_pool, rows)}

    def every(self) -> list[Pool]:
        """All pools, by name."""
        return sorted(self._pools.values(), key=lambda pool: pool.name)

    def get(self, name: str) -> Pool | None:
        """The pool of this name."""
        return self._pools.get(name)

    def put(self, pool: Pool) -> None:
        """Write a pool; it takes the place of one with its name."""
        with_name = "INSERT INTO pools (id, name, size, spec, created) VALUES (?, ?, ?, ?, ?) "
        with_name += "ON CONFLICT (name) DO UPDATE SET id = excluded.id, size = excluded.size, "
        with_name += "spec = excluded.spec"
        values = (pool.id, pool.name, pool.size, _SPEC.dump_json(pool.spec), pool.created)
        self._connection.execute(with_name, values)
        self._pools[pool.name] = pool

    def delete(self, name: str) -> None:
        """Forget a pool."""
        self._connection.execute("DELETE FROM pools WHERE name = ?", (name,))
        self._pools.pop(name, None)


def _pool(row: sqlite3.Row) -> Pool:
    return Pool(**{**dict(row), "spec": _SPEC.validate_json(row["spec"])})
