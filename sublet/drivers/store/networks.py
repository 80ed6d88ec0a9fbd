"""Networks, and who is on them, in the database.

An instance that asked for no network is on the default one without a row here.
"""

from __future__ import annotations

import json
import sqlite3

from sublet.domain.errors import NameInUse
from sublet.domain.networks import Connection, NamedNetwork
from sublet.drivers.store.database import Database


class NetworkStore:
    """The rows of `networks` and `connections`. A connection's goes with its instance's."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, network: NamedNetwork) -> None:
        """Insert a row; NameInUse where another network has its name."""
        row = (
            network.id,
            network.name,
            network.number,
            network.subnet,
            network.gateway,
            network.internal,
            json.dumps(dict(network.labels)),
            network.created,
        )
        try:
            self._db.connection.execute("INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            if "networks.name" in str(error):
                raise NameInUse(
                    f"There is a network '{network.name}' already.",
                    hint="Choose another name, or remove that one with `sublet network rm`.",
                ) from error
            raise

    def delete(self, network_id: str) -> None:
        self._db.connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def all(self) -> list[NamedNetwork]:
        """All networks, the default one first, then the oldest."""
        rows = self._db.connection.execute("SELECT * FROM networks ORDER BY created, number")
        return [_network(row) for row in rows]

    def get(self, network_id: str) -> NamedNetwork | None:
        rows = self._db.connection.execute("SELECT * FROM networks WHERE id = ?", (network_id,))
        row = rows.fetchone()
        return _network(row) if row else None

    def find(self, text: str) -> list[NamedNetwork]:
        """The network of this name, else those whose ids begin with `text`."""
        execute = self._db.connection.execute
        rows = execute("SELECT * FROM networks WHERE name = ? OR id = ?", (text, text)).fetchall()
        if not rows and text:
            begins = "SELECT * FROM networks WHERE substr(id, 1, ?) = ?"
            rows = execute(begins, (len(text), text)).fetchall()
        return [_network(row) for row in rows]

    def connect(self, connection: Connection) -> None:
        """Insert a connection."""
        row = (
            connection.network,
            connection.instance,
            connection.interface,
            connection.offset,
            json.dumps(connection.aliases),
        )
        self._db.connection.execute("INSERT INTO connections VALUES (?, ?, ?, ?, ?)", row)

    def disconnect(self, network_id: str, instance_id: str) -> None:
        self._db.connection.execute(
            "DELETE FROM connections WHERE network = ? AND instance = ?", (network_id, instance_id)
        )

    def of_instance(self, instance_id: str) -> list[Connection]:
        """The instance's connections, eth0 first."""
        rows = self._db.connection.execute(
            "SELECT * FROM connections WHERE instance = ? ORDER BY interface", (instance_id,)
        )
        return [_connection(row) for row in rows]

    def at(self, network_id: str, offset: int) -> Connection | None:
        """The connection that has this place in the network."""
        rows = self._db.connection.execute(
            "SELECT * FROM connections WHERE network = ? AND offset = ?", (network_id, offset)
        )
        row = rows.fetchone()
        return _connection(row) if row else None

    def of_network(self, network_id: str) -> list[Connection]:
        """The network's connections, in the order of their addresses."""
        rows = self._db.connection.execute(
            "SELECT * FROM connections WHERE network = ? ORDER BY offset", (network_id,)
        )
        return [_connection(row) for row in rows]


def _network(row: sqlite3.Row) -> NamedNetwork:
    values = dict(row)
    values["internal"], values["labels"] = bool(row["internal"]), json.loads(row["labels"])
    return NamedNetwork(**values)


def _connection(row: sqlite3.Row) -> Connection:
    values = dict(row)
    values["aliases"] = tuple(json.loads(row["aliases"]))
    return Connection(**values)
