"""Schedules and their runs in the database, as typed rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from pydantic import TypeAdapter

from sublet.domain.errors import NameInUse
from sublet.domain.schedules import HISTORY, OPEN, Missed, Outcome, Overlap, Run, Schedule
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database

_SPEC = TypeAdapter(InstanceSpec | None)
_SCHEDULE = tuple(field.name for field in fields(Schedule))
_OPEN = "({})".format(", ".join(f"'{outcome}'" for outcome in sorted(OPEN)))
_RUN = tuple(field.name for field in fields(Run))


class ScheduleStore:
    """The rows of `schedules` and `schedule_runs`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, schedule: Schedule) -> None:
        """Insert a row; NameInUse where another schedule has its name."""
        columns = ", ".join(f'"{name}"' for name in _SCHEDULE)
        values = ", ".join(f":{name}" for name in _SCHEDULE)
        try:
            self._db.connection.execute(
                f"INSERT INTO schedules ({columns}) VALUES ({values})", _row(schedule)
            )
        except sqlite3.IntegrityError as error:
            raise NameInUse(
                f"There is a schedule '{schedule.name}' already.",
                hint=f"Choose another name, or `sublet schedule rm {schedule.name}` first.",
            ) from error

    def update(self, schedule: Schedule, runs: Iterable[Run] = ()) -> list[Run]:
        """Write a schedule's state and new runs of it, all or nothing; the runs with their ids."""
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE schedules SET enabled = :enabled, handled = :handled WHERE id = :id",
                _row(schedule),
            )
            made = [replace(run, id=self._insert(run)) for run in runs]
            if made:
                self._forget(schedule)
            return made

    def delete(self, schedule_id: str) -> None:
        """Delete a schedule with its history."""
        self._db.connection.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,))

    def every(self) -> list[Schedule]:
        """All schedules by name."""
        rows = self._db.connection.execute("SELECT * FROM schedules ORDER BY name")
        return [_schedule(row) for row in rows]

    def get(self, text: str) -> Schedule | None:
        """The schedule of this name or id."""
        row = self._db.connection.execute(
            "SELECT * FROM schedules WHERE name = ? OR id = ?", (text, text)
        ).fetchone()
        return _schedule(row) if row else None

    def _insert(self, run: Run) -> int:
        names = _RUN[1:]
        cursor = self._db.connection.execute(
            f"INSERT INTO schedule_runs ({', '.join(names)}) "
            f"VALUES ({', '.join(f':{name}' for name in names)})",
            {name: getattr(run, name) for name in _RUN},
        )
        return int(cursor.lastrowid or 0)

    def put_run(self, run: Run) -> None:
        """Write a run as it is now, if there is a row of it."""
        assignments = ", ".join(f"{name} = :{name}" for name in _RUN[1:])
        self._db.connection.execute(
            f"UPDATE schedule_runs SET {assignments} WHERE id = :id",
            {name: getattr(run, name) for name in _RUN},
        )

    def runs(self, schedule_id: str) -> list[Run]:
        """A schedule's runs, the newest first."""
        rows = self._db.connection.execute(
            "SELECT * FROM schedule_runs WHERE schedule = ? ORDER BY id DESC", (schedule_id,)
        )
        return [_run(row) for row in rows]

    def open(self, schedule_id: str) -> list[Run]:
        """Those that go on or wait, the oldest first."""
        rows = self._db.connection.execute(
            f"SELECT * FROM schedule_runs WHERE schedule = ? AND outcome IN {_OPEN} ORDER BY id",
            (schedule_id,),
        )
        return [_run(row) for row in rows]

    def last(self, schedule_id: str) -> Run | None:
        """The newest run."""
        row = self._db.connection.execute(
            "SELECT * FROM schedule_runs WHERE schedule = ? ORDER BY id DESC LIMIT 1",
            (schedule_id,),
        ).fetchone()
        return _run(row) if row else None

    def _forget(self, schedule: Schedule) -> None:
        """Delete the oldest runs that are over, but none whose instance is still to be deleted:
        the row is what tells that it is there."""
        self._db.connection.execute(
            f"DELETE FROM schedule_runs WHERE schedule = :id AND outcome NOT IN {_OPEN} "
            "AND (:start != '' OR instance NOT IN (SELECT id FROM instances)) AND id NOT IN ("
            f"SELECT id FROM schedule_runs WHERE schedule = :id AND outcome NOT IN {_OPEN} "
            "ORDER BY id DESC LIMIT :history)",
            {"id": schedule.id, "start": schedule.start, "history": HISTORY},
        )


def _row(schedule: Schedule) -> dict[str, Any]:
    row = {name: getattr(schedule, name) for name in _SCHEDULE}
    return {**row, "spec": _SPEC.dump_json(schedule.spec)}


def _schedule(row: sqlite3.Row) -> Schedule:
    values = dict(row)
    values["spec"] = _SPEC.validate_json(values["spec"])
    values["missed"], values["overlap"] = Missed(values["missed"]), Overlap(values["overlap"])
    values["enabled"] = bool(values["enabled"])
    return Schedule(**values)


def _run(row: sqlite3.Row) -> Run:
    values = dict(row)
    return Run(**{**values, "outcome": Outcome(values["outcome"])})
