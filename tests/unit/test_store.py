"""The database: old ones are taken further, newer ones refused, rows come back as they went."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sublet.domain.errors import HostUnsupported, NameInUse
from sublet.domain.event import Event
from sublet.domain.instance import State
from sublet.domain.mounts import Mount
from sublet.domain.networks import STANDARD, Connection, NamedNetwork
from sublet.domain.ports import Port
from sublet.drivers.store.database import MIGRATIONS, Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.networks import NetworkStore

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_database_of_every_version_opens(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript((DATA / f"version-{version}.sql").read_text())
    old.close()
    database = Database(path)
    store = InstanceStore(database)
    (row,) = store.all()
    assert (row.name, row.state, row.exit_code, row.slot) == ("db", State.STOPPED, 3, 7)
    assert row.spec.ports == (Port(5432, 15432),)
    assert row.spec.mounts == (Mount("/srv", "/data", True),)
    assert store.setting("subnet") == "10.208.0.0/16"
    (found,) = database.connection.execute("PRAGMA user_version").fetchone()
    assert found == len(MIGRATIONS)
    database.close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(HostUnsupported, match="version"):
        Database(path)


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old = sqlite3.connect(path)
    old.executescript((DATA / "version-1.sql").read_text())
    old.close()
    database = Database(path)
    store = InstanceStore(database)
    (row,) = store.all()
    with pytest.raises(NameInUse):
        store.add(replace(row, id="ba9876543210", slot=8))
    other = replace(row, id="01ff00000000", slot=8, name="01")
    store.add(other)
    assert store.find("db") == store.find("0123456789ab") == store.find("0123") == [row]
    assert store.find("01") == [other]  # a name goes before the beginning of an id
    assert store.slots() == {7, 8}
    store.update(replace(other, state=State.RUNNING))
    assert store.get(other.id) == replace(other, state=State.RUNNING)
    with pytest.raises(NameInUse):
        store.update(replace(other, name="db"))
    store.update(replace(other, id="ffffffffffff", name="gone"))  # of which there is no row
    again = InstanceStore(Database(path))
    assert again.all() == store.all() == [row, replace(other, state=State.RUNNING)]
    store.delete(other.id)
    assert store.all() == [row]
    store.add_event(Event(5.0, "instance.running", row.id, {"name": "db"}))
    assert store.events(since=5.0) == [Event(5.0, "instance.running", row.id, {"name": "db"}, 1)]
    assert store.events(since=5.1) == []
    assert store.events(after=1) == []
    database.close()


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    store = InstanceStore(database)

    def fail() -> None:
        with database.transaction():
            store.set_setting("a", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.setting("a") == ""
    database.close()


def test_networks(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "x.db")
    old.executescript((DATA / "version-4.sql").read_text())
    old.close()
    database = Database(tmp_path / "x.db")
    store, instances = NetworkStore(database), InstanceStore(database)
    default, back = store.all()
    assert default == STANDARD
    assert back == NamedNetwork(
        "00112233aabb", "back", 16, "", "", True, {"team": "x"}, 1700000000.0
    )
    assert store.find("0011") == store.find("back") == [back]
    with pytest.raises(NameInUse, match="back"):
        store.add(replace(back, id="f" * 12, number=17))
    [row] = instances.all()
    connection = Connection(back.id, row.id, 1, 2, ("store",))
    assert store.of_instance(row.id) == store.of_network(back.id) == [connection]
    instances.delete(row.id)
    assert store.of_network(back.id) == [], "it goes with the instance"
    store.delete(back.id)
    assert store.all() == [STANDARD]
    database.close()
