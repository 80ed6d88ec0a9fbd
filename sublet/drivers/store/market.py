"""The market in the database: spot requests, notices, the price's history, as typed rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.spot import Request, Status, Type
from sublet.drivers.store.database import Database


@dataclass(frozen=True, slots=True)
class Quote:
    """The factor on the on-demand price from `time` on (seconds since the epoch); `used`: the
    share of the capacity that on-demand used."""

    time: float
    factor: float
    used: float


class MarketStore:
    """The rows of `spot_requests`, `notices` and `quotes`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # Requests

    def put_request(self, request: Request) -> None:
        """Insert or replace a row."""
        self._db.connection.execute(
            "INSERT OR REPLACE INTO spot_requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(request.id, request.instance, request.name, request.type, request.status),
                *(request.max_price, request.created, request.updated, int(request.wanted)),
            ),
        )

    def requests(self) -> list[Request]:
        """All of them, the oldest first."""
        rows = self._db.connection.execute("SELECT * FROM spot_requests ORDER BY created, rowid")
        return [_request(row) for row in rows]

    def delete_request(self, request_id: str) -> None:
        self._db.connection.execute("DELETE FROM spot_requests WHERE id = ?", (request_id,))

    # Notices

    def put_notices(self, notices: Iterable[Notice]) -> None:
        """Insert or replace their rows, all or none."""
        with self._db.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?, 0)",
                [(n.instance, n.action, n.reason, n.given, n.deadline) for n in notices],
            )

    def begin(self, instance_id: str) -> None:
        """The action is about to be taken: whatever ends it now, it was the market's doing."""
        self._db.connection.execute(
            "UPDATE notices SET begun = 1 WHERE instance = ?", (instance_id,)
        )

    def delete_notice(self, instance_id: str) -> None:
        self._db.connection.execute("DELETE FROM notices WHERE instance = ?", (instance_id,))

    def notices(self) -> list[tuple[Notice, bool]]:
        """All of them, and whether each one's action has begun."""
        rows = self._db.connection.execute("SELECT * FROM notices ORDER BY given, rowid")
        return [(_notice(row), bool(row["begun"])) for row in rows]

    # Prices

    def add_quote(self, quote: Quote) -> None:
        self._db.connection.execute(
            "INSERT INTO quotes VALUES (?, ?, ?)", (quote.time, quote.factor, quote.used)
        )

    def last_quote(self) -> Quote | None:
        found = self._quotes("SELECT * FROM quotes ORDER BY rowid DESC LIMIT 1")
        return found[0] if found else None

    def quotes(self, since: float) -> list[Quote]:
        """The factors since then, and the one that held then, the oldest first."""
        before = self._quotes(
            "SELECT * FROM quotes WHERE time < ? ORDER BY time DESC, rowid DESC LIMIT 1", since
        )
        return before + self._quotes(
            "SELECT * FROM quotes WHERE time >= ? ORDER BY time, rowid", since
        )

    def forget_quotes(self, before: float) -> None:
        """Delete what is older, but for the last one."""
        self._db.connection.execute(
            "DELETE FROM quotes WHERE time < ? AND rowid < (SELECT max(rowid) FROM quotes)",
            (before,),
        )

    def _quotes(self, statement: str, *values: float) -> list[Quote]:
        rows = self._db.connection.execute(statement, values)
        return [Quote(row["time"], row["factor"], row["used"]) for row in rows]


def _request(row: sqlite3.Row) -> Request:
    values = dict(row)
    values["type"], values["status"] = Type(values["type"]), Status(values["status"])
    return Request(**{**values, "wanted": bool(values["wanted"])})


def _notice(row: sqlite3.Row) -> Notice:
    action, reason = Action(row["action"]), Reason(row["reason"])
    return Notice(row["instance"], action, reason, row["given"], row["deadline"])
