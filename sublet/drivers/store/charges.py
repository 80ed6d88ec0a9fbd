"""The meter's segments in the database, as typed rows."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace

from sublet.domain.meter import MINIMUM, Charge, Reading
from sublet.domain.spec import Market
from sublet.drivers.store.database import Database

_COLUMNS = (
    "id, run, instance, name, image, market, cpus, memory, price, on_demand, "
    "wall, monotonic, boot, seconds, reclaimed, priced, spent, labels"
)
_ADD = f"INSERT INTO charges ({_COLUMNS}) VALUES (NULL{', ?' * 17})"
_SELECT = f"SELECT {_COLUMNS} FROM charges"


_MARKETS: Mapping[object, Market] = {market.value: market for market in Market}


class ChargeStore:
    """The rows of `charges`. Those that go on are kept in memory, by instance."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._path = database.path
        self.open: dict[str, Charge] = {}
        self.reload()

    def reload(self) -> None:
        """Read anew what is kept in memory."""
        rows = self._connection.execute(f"{_SELECT} WHERE seconds IS NULL")
        self.open = {charge.instance: charge for charge in map(_charge, rows)}

    def forget(self, instance_id: str) -> None:
        """Read anew what is kept in memory of one instance."""
        query = f"{_SELECT} WHERE seconds IS NULL AND instance = ?"
        self.open.pop(instance_id, None)
        for row in self._connection.execute(query, (instance_id,)):
            self.open[instance_id] = _charge(row)

    def begin(self, charge: Charge, run: int = 0) -> None:
        """Write a new segment of the start `run`, 0: of a new start."""
        began = charge.began
        values = (
            *(run, charge.instance, charge.name, charge.image, charge.market.value),
            *(charge.cpus, charge.memory, charge.price, charge.on_demand),
            *(began.wall, began.monotonic, began.boot, None, int(charge.reclaimed)),
            *(charge.priced, charge.spent),
            json.dumps(dict(charge.labels)) if charge.labels else "{}",
        )
        cursor = self._connection.execute(_ADD, values)
        number = int(cursor.lastrowid or 0)
        if not run:
            self._connection.execute("UPDATE charges SET run = id WHERE id = ?", (number,))
        self.open[charge.instance] = _numbered(charge, number, run or number)

    def reprice(self, charge: Charge) -> None:
        """Write the price of a segment that goes on, and what it cost before."""
        self._connection.execute(
            "UPDATE charges SET price = ?, priced = ?, spent = ? WHERE id = ?",
            (charge.price, charge.priced, charge.spent, charge.id),
        )
        self.open[charge.instance] = charge

    def end(self, charge: Charge, seconds: float) -> None:
        """Close the segment that goes on of an instance."""
        self._connection.execute(
            "UPDATE charges SET seconds = ? WHERE id = ?", (seconds, charge.id)
        )
        self.open.pop(charge.instance, None)

    def owned_by(self, charge: Charge, owner: str, name: str) -> None:
        """Let all segments of a start be those of another id than the instance's, and a name."""
        self._connection.execute(
            "UPDATE charges SET instance = ?, name = ? WHERE run = ?", (owner, name, charge.run)
        )

    def reclaim(self, instance_id: str) -> None:
        """Note of an instance's last start that the host took its capacity back."""
        self._connection.execute(
            "UPDATE charges SET reclaimed = 1 WHERE instance = ?1 AND run = "
            "(SELECT max(run) FROM charges WHERE instance = ?1)",
            (instance_id,),
        )
        self.forget(instance_id)

    def of(self, instance_id: str) -> list[Charge]:
        """All of an instance, the oldest first."""
        query = f"{_SELECT} WHERE instance = ? ORDER BY id"
        return [_charge(row) for row in self._connection.execute(query, (instance_id,))]

    def since(self, begin: float) -> list[Charge]:
        """All starts that were not over before a moment (seconds since the epoch)."""
        query = f"{_SELECT} WHERE run IN (SELECT run FROM charges WHERE seconds IS NULL "
        query += "OR wall + seconds >= ?) ORDER BY id"
        return [_charge(row) for row in self._connection.execute(query, (begin - MINIMUM,))]

    def all(self) -> list[Charge]:
        """All segments there are, the oldest first; from any thread."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            return list(map(_charge, connection.execute(f"{_SELECT} ORDER BY id")))


@functools.lru_cache(1000)
def _labels(text: str) -> Mapping[str, str]:
    """Most rows have the labels of many others."""
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def _numbered(charge: Charge, number: int, run: int) -> Charge:
    return replace(charge, id=number, run=run)


def _charge(row: Iterable[object]) -> Charge:
    number, run, instance, name, image, market, *rest, labels = row
    cpus, memory, price, on_demand, wall, monotonic, boot, seconds, reclaimed = rest[:9]
    return Charge(
        *(number, run, instance, name, image, _MARKETS[market], cpus, memory, price, on_demand),  # type: ignore[arg-type]
        Reading(wall, monotonic, boot),  # type: ignore[arg-type]
        seconds,  # type: ignore[arg-type]
        bool(reclaimed),
        _labels(labels),
        *rest[9:],  # type: ignore[arg-type]
    )
