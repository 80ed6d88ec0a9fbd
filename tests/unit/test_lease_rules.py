"""Leases as the engine keeps them: who holds one, and what goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sublet.domain.errors import Busy, LeaseEnded, NoSuchInstance
from sublet.domain.instance import Instance, State
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.engine import leases
from sublet.engine.leases import Leases
from sublet.engine.tasks import Tasks


class Lab:
    """Rows, and removals that are only written down."""

    def __init__(self, path: Path) -> None:
        self.store = InstanceStore(Database(path))
        self.removed: asyncio.Queue[str] = asyncio.Queue()
        self.busy: set[str] = set()
        self.tasks = Tasks()
        parts = SimpleNamespace(store=self.store, tasks=self.tasks)
        lifecycle = SimpleNamespace(tell=lambda what, row: None)
        self.verbs = SimpleNamespace(parts=parts, lifecycle=lifecycle, remove=self.remove)
        self.leases = Leases(cast(Any, self.verbs))

    async def remove(self, instance_id: str, *, force: bool, volumes: bool) -> None:
        assert force
        assert volumes
        if instance_id in self.busy:
            self.busy.discard(instance_id)
            self.removed.put_nowait(f"not {instance_id}")
            raise Busy("It is busy.")
        if self.store.get(instance_id) is None:
            raise NoSuchInstance("It is gone.")
        self.store.delete(instance_id)
        self.removed.put_nowait(instance_id)

    def add(self, name: str, lease: str, state: State = State.RUNNING) -> None:
        self.leases.check(lease)
        spec = InstanceSpec(image="i", lease=lease)
        slot = max(self.store.slots(), default=0) + 1
        self.store.add(Instance(name, name, "i", "d", spec, slot, state, 0.0))

    async def next(self) -> str:
        return await asyncio.wait_for(self.removed.get(), 10)

    def left(self) -> list[str]:
        return [row.id for row in self.store.all()]


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(leases, "GRACE", 0.01)
    monkeypatch.setattr(leases, "RETRY", 0.01)
    made = Lab(tmp_path / "db")
    yield made
    await made.tasks.close()


@pytest.fixture
async def later(lab: Lab) -> Lab:
    """One whose time to take leases up has passed."""
    await lab.leases.recover()
    return lab


async def test_instances_go_with_their_connection(later: Lab) -> None:
    with later.leases.hold() as lease, later.leases.hold() as other:
        later.add("a", lease)
        later.add("b", lease, State.PENDING)
        later.add("c", other)
        later.add("d", "")
        await later.leases.release(lease)
        assert later.left() == ["c", "d"]
    assert await later.next() in "ab"
    assert await later.next() in "ab"
    assert await later.next() == "c"
    assert later.left() == ["d"]


async def test_nothing_is_made_after_the_end(later: Lab) -> None:
    with later.leases.hold() as lease:
        later.add("a", lease)
    with pytest.raises(LeaseEnded):
        later.add("b", lease)
    with pytest.raises(LeaseEnded), later.leases.hold(lease):
        pass
    with pytest.raises(LeaseEnded):
        later.add("c", "ab12")


async def test_one_connection_holds_a_lease(later: Lab) -> None:
    with later.leases.hold() as lease, pytest.raises(LeaseEnded), later.leases.hold(lease):
        pass


async def test_what_is_busy_is_removed_later(later: Lab) -> None:
    with later.leases.hold() as lease:
        later.add("a", lease)
        later.busy.add("a")
    assert await later.next() == "not a"
    assert await later.next() == "a"


async def test_who_releases_is_told_what_stays(later: Lab) -> None:
    with later.leases.hold() as lease:
        later.add("a", lease)
        later.busy.add("a")
        with pytest.raises(Busy):
            await later.leases.release(lease)
    assert await later.next() == "not a"
    assert await later.next() == "a"


async def test_a_daemon_that_ends_deletes_nothing(lab: Lab) -> None:
    with lab.leases.hold() as lease:
        lab.add("a", lease)
        lab.leases.suspend()
    assert lab.left() == ["a"]


async def test_the_next_daemon_waits_for_clients(lab: Lab) -> None:
    lab.add("a", "ab12")
    lab.add("b", "cd34")
    with lab.leases.hold("ab12"):
        lab.add("c", "ab12")
        await lab.leases.recover()
        assert await lab.next() == "b"
        assert lab.left() == ["a", "c"]
        lab.add("d", "ab12")
        with pytest.raises(LeaseEnded), lab.leases.hold("cd34"):
            pass


async def test_what_ended_while_it_waits_does_not_return(lab: Lab) -> None:
    with lab.leases.hold("ab12"):
        pass
    with pytest.raises(LeaseEnded), lab.leases.hold("ab12"):
        pass
    with pytest.raises(LeaseEnded):
        lab.add("a", "ab12")
