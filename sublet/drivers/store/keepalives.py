"""Keep-alives in the database: until when an instance counts as used, whatever it does."""

from __future__ import annotations

from sublet.drivers.store.database import Database


class KeepaliveStore:
    """The rows of `keepalives`, which go with their instances."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def all(self) -> dict[str, float]:
        """Until when, in seconds since the epoch, by instance id."""
        rows = self._db.connection.execute("SELECT instance, until FROM keepalives")
        return {row["instance"]: row["until"] for row in rows}

    def set(self, instance_id: str, until: float) -> None:
        """Keep it alive until then."""
        self._db.connection.execute(
            "INSERT OR REPLACE INTO keepalives (instance, until) VALUES (?, ?)",
            (instance_id, until),
        )

    def forget(self, instance_id: str) -> None:
        """Nobody keeps it alive any more."""
        self._db.connection.execute("DELETE FROM keepalives WHERE instance = ?", (instance_id,))
