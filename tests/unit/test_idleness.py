"""Rules for idleness at work, with a clock that the test moves and readings that it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sublet.domain.errors import DiskFull, WrongState
from sublet.domain.idle import Idle, Reading, Traffic
from sublet.domain.instance import Instance, State
from sublet.domain.notice import Action
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.keepalives import KeepaliveStore
from sublet.engine.idleness import Idleness
from sublet.engine.locks import Locks
from sublet.engine.tasks import Tasks

NONE = Traffic(0, 0)


class Lab:
    """One daemon's rules: actions are written down, time passes when `passes` says so."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.store = InstanceStore(self.database)
        self.now, self.cpu = 1000.0, 0.0
        self.done: list[str] = []
        self.told: list[str] = []
        self.fails = False
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self.locks = Locks()
        self.lifecycle = SimpleNamespace(tell=self._tell, locks=self.locks)
        self.tasks = Tasks()
        self.idleness = self.daemon()

    def daemon(self) -> Idleness:
        parts = SimpleNamespace(store=self.store, tasks=self.tasks)
        verbs = SimpleNamespace(
            parts=parts,
            lifecycle=self.lifecycle,
            get=lambda text: self.store.find(text)[0],
            stop=lambda name: self._do("stop", name),
            hibernate=lambda name: self._do("hibernate", name),
            remove=lambda name, **_: self._do("remove", name),
        )
        return Idleness(
            cast(Any, verbs),
            KeepaliveStore(self.database),
            read=lambda _: Reading(self.now, self.cpu, NONE, NONE),
            now=lambda: self.now,
            sleep=self._sleep,
        )

    async def add(self, name: str, rule: Idle | None, state: State = State.RUNNING) -> Instance:
        spec = InstanceSpec(image="i", cpus=1, memory=1 << 29, idle=rule)
        row = Instance(name, name, "i", "d", spec, len(self.store.all()) + 1, state, 0.0)
        self.store.add(row)
        self.idleness.up(row)
        await self.settle()
        return row

    async def passes(self, seconds: float) -> None:
        """Time passes, second by second; everybody who is due does what he does."""
        for _ in range(round(seconds)):
            self.now += 1
            due = [event for moment, event in self._sleepers if moment <= self.now]
            self._sleepers = [each for each in self._sleepers if each[0] > self.now]
            for event in due:
                event.set()
            await self.settle()

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def _sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.now + seconds - 1e-9, event))
        await event.wait()

    async def _do(self, what: str, name: str) -> None:
        if self.fails:
            self.fails = False
            raise DiskFull("There is no room.")
        row = self.store.get(name)
        assert row
        self.store.update(replace(row, state=State.STOPPED))
        self.done.append(f"{what} {name}")
        self.idleness.ended(row)

    def _tell(self, what: str, row: Instance, **_: str) -> None:
        self.told.append(f"{what} {row.id}")


@pytest.fixture
def event_loop_lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "db")
    yield lab
    lab.database.close()


@pytest.fixture
async def lab(event_loop_lab: Lab) -> AsyncIterator[Lab]:
    await asyncio.sleep(0)
    yield event_loop_lab
    await event_loop_lab.tasks.close()


async def test_who_is_unused_for_a_window_is_stopped(lab: Lab) -> None:
    await lab.add("a", Idle(60))
    await lab.add("b", None)
    await lab.passes(59)
    assert lab.done == []
    await lab.passes(1)
    assert (lab.done, lab.told) == (["stop a"], ["idle a"])
    await lab.passes(200)
    assert lab.done == ["stop a"]


async def test_use_begins_the_window_again(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    await lab.passes(45)
    lab.cpu += 5
    await lab.passes(5)
    report = lab.idleness.report(row)
    assert report
    assert report.because == ("it uses 50% of a CPU",)
    assert report.acts is None
    await lab.passes(59)
    report = lab.idleness.report(row)
    assert report
    assert report.because == ()
    assert report.acts
    assert report.acts - report.since == pytest.approx(60)
    assert lab.done == []
    await lab.passes(1)
    assert lab.done == ["stop a"]


async def test_a_session_counts_for_as_long_as_it_lasts(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    await lab.passes(45)
    with lab.idleness.session("a", "exec"), lab.idleness.session("a", "attach"):
        report = lab.idleness.report(row)
        assert report
        assert report.because == ("somebody is attached: attach, exec",)
        await lab.passes(300)
        assert lab.done == []
    await lab.passes(9)
    with lab.idleness.session("a", "exec"):  # between two looks
        pass
    await lab.passes(65)
    assert lab.done == []
    await lab.passes(1)
    assert lab.done == ["stop a"]


async def test_a_keepalive_lasts_also_across_daemons(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    lab.idleness.keep("a", 200)
    await lab.passes(100)
    lab.idleness.ended(row)
    lab.idleness = lab.daemon()
    lab.idleness.up(row)
    await lab.settle()
    await lab.passes(160)
    assert lab.done == []
    report = lab.idleness.report(row)
    assert report
    assert report.kept
    lab.idleness.keep("a", 0)
    assert KeepaliveStore(lab.database).all() == {}
    await lab.passes(70)
    assert lab.done == ["stop a"]


async def test_keepalive_needs_a_rule(lab: Lab) -> None:
    await lab.add("a", None)
    with pytest.raises(WrongState, match="no rule"):
        lab.idleness.keep("a", 0)


async def test_a_window_begins_with_the_daemon_and_with_each_start(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    await lab.passes(55)
    lab.idleness.up(row)  # an explicit start, or another daemon
    await lab.settle()
    await lab.passes(59)
    assert lab.done == []
    await lab.passes(1)
    assert lab.done == ["stop a"]


@pytest.mark.parametrize(
    ("action", "verb"), [(Action.HIBERNATE, "hibernate"), (Action.TERMINATE, "remove")]
)
async def test_actions(lab: Lab, action: Action, verb: str) -> None:
    await lab.add("a", Idle(60, action))
    await lab.passes(60)
    assert lab.done == [f"{verb} a"]


async def test_an_action_that_fails_is_tried_again_after_a_window(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    lab.fails = True
    await lab.passes(60)
    assert lab.told == ["idle a", "idle-failed a"]
    report = lab.idleness.report(row)
    assert report
    assert report.because[0].startswith("stop failed: There is no room")
    await lab.passes(71)
    assert lab.done == ["stop a"]


async def test_a_rule_can_come_change_and_go(lab: Lab) -> None:
    row = await lab.add("a", None)
    row = replace(row, spec=replace(row.spec, idle=Idle(60)))
    lab.store.update(row)
    lab.idleness.updated(row)
    await lab.settle()
    await lab.passes(50)
    none = replace(row, spec=replace(row.spec, idle=None))
    lab.store.update(none)
    lab.idleness.updated(none)
    await lab.settle()
    await lab.passes(100)
    assert lab.done == []
    assert lab.idleness.report(none) is None


async def test_who_is_paused_or_copied_is_left_alone(lab: Lab) -> None:
    row = await lab.add("a", Idle(60))
    lab.store.update(replace(row, state=State.PAUSED))
    await lab.passes(120)
    lab.store.update(row)
    async with lab.locks.hold("a", "snapshot"):
        await lab.passes(120)
    assert lab.done == []
    await lab.passes(60)
    assert lab.done == ["stop a"]
