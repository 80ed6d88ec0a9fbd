"""Runs of schedules where the daemon dies, disks fill up and rules are removed: with real rows,
and instances that only their rows know of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sublet.domain.config import Config
from sublet.domain.errors import InsufficientCapacity, NoSuchInstance
from sublet.domain.instance import Instance, State
from sublet.domain.schedules import (
    GRACE,
    HISTORY,
    LABEL,
    Missed,
    Outcome,
    Overlap,
    Run,
    Schedule,
)
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.schedules import ScheduleStore
from sublet.engine.events import Events
from sublet.engine.runs import Runs
from sublet.engine.schedules import Schedules
from sublet.engine.tasks import Tasks

SPEC = InstanceSpec("i", cpus=1, memory=1 << 29)
NOW = 1_800_000_000.0


class Lab:
    """A daemon's schedules. `held`: starts wait for it; `ends` ends an instance."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.rows, self.store = InstanceStore(self.database), ScheduleStore(self.database)
        self.now, self.held = NOW, asyncio.Event()
        self.held.set()
        self.made: list[str] = []
        self._count = self.waited = 0
        self.full = False
        self.up()

    def up(self) -> None:
        """As a daemon that comes up, or comes up again."""
        self.tasks, self._ends = Tasks(), {}  # type: ignore[var-annotated]
        self.events = Events(self.rows)
        parts = SimpleNamespace(
            store=self.rows,
            tasks=self.tasks,
            events=self.events,
            config=Config(),
        )
        verbs = SimpleNamespace(
            parts=parts,
            get=self._get,
            images=SimpleNamespace(ensure=self._ensure, local=lambda name: name),
            **{name: getattr(self, name) for name in ("run", "start", "stop", "wait", "remove")},
        )
        never = lambda *_: asyncio.Event().wait()  # noqa: E731
        runs = Runs(
            cast(Any, verbs), self.store, lambda *_: 0.5, lambda: self.now, cast(Any, never)
        )
        self.runs = runs
        self.schedules = Schedules(
            cast(Any, verbs), self.store, runs, lambda: self.now, cast(Any, never)
        )

    async def down(self) -> None:
        await self.tasks.close()

    def create(self, when: str = "0 0 1 1 *", **more: Any) -> Schedule:
        rule = Schedule("", "s", when, **{"spec": SPEC, **more})
        return self.schedules.create(rule)

    def add(self, name: str, state: State = State.STOPPED, **more: Any) -> Instance:
        self._count += 1
        number = f"{self._count:012x}"
        spec = replace(SPEC, name=name, labels={LABEL: "s"})
        row = Instance(number, name, "i", "d", spec, self._count, state, self.now, **more)
        self.rows.add(row)
        return row

    def outcomes(self) -> list[str]:
        return [str(run.outcome) for run in self.store.runs(self.schedules.get("s").id)]

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    # What the engine offers

    def _get(self, text: str) -> Instance:
        found = self.rows.find(text)
        if not found:
            raise NoSuchInstance(f"There is no instance '{text}'.")
        return found[0]

    async def _ensure(self, image: str) -> None:
        await self.held.wait()

    async def run(self, spec: InstanceSpec, *, wait: bool) -> tuple[Instance, None]:
        if self.full and not wait:
            raise InsufficientCapacity("There is no room.")
        self.waited += wait
        row = self.add(spec.name, State.RUNNING, started=self.now, wanted=True)
        self.made.append(row.name)
        return row, None

    async def start(self, text: str, *, wait: bool) -> tuple[Instance, None]:
        row = self._get(text)
        self.rows.update(replace(row, state=State.RUNNING, started=self.now, wanted=True))
        return self._get(text), None

    async def stop(self, text: str) -> None:
        row = self._get(text)
        self.rows.update(replace(row, wanted=False))
        self.ends(row.id, 143)

    def ends(self, name: str, code: int = 0) -> None:
        row = self._get(name)
        row = replace(row, state=State.STOPPED, exit_code=code, finished=self.now)
        self.rows.update(row)
        self._end(row.id).set()

    def _end(self, instance_id: str) -> asyncio.Event:
        return self._ends.setdefault(instance_id, asyncio.Event())

    async def wait(self, instance_id: str) -> int:
        await self._end(instance_id).wait()
        return self._get(instance_id).exit_code or 0

    async def remove(self, instance_id: str, **_: bool) -> None:
        self._get(instance_id)
        await asyncio.sleep(0)
        self.rows.delete(instance_id)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "db")
    yield made
    await made.down()
    made.database.close()


async def test_instances_outlive_no_history(lab: Lab) -> None:
    """However many runs were skipped since: what a run left is deleted in its turn."""
    rule = lab.create(keep=1)
    for _ in range(2):
        lab.schedules.run("s")
        await lab.settle()
        name = lab.made[-1]
        for _ in range(HISTORY + 20):
            lab.store.update(rule, [Run(0, rule.id, lab.now, Outcome.SKIPPED)])
        assert len(lab.store.runs(rule.id)) <= HISTORY + 2
        lab.ends(name)
        await lab.settle()
        assert [row.name for row in lab.rows.all()] == [name]
    await lab.schedules.remove("s")
    assert (lab.rows.all(), lab.store.every()) == ([], [])


@pytest.mark.parametrize("named", [False, True])
async def test_a_daemon_that_dies_before_the_start(lab: Lab, named: bool) -> None:
    """Between the run's row and its instance, and between that one's being chosen and started."""
    box = lab.add("box", started=NOW - 100, exit_code=7, finished=NOW - 50)
    rule = lab.create(spec=None, start="box")
    run = Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, instance=box.id if named else "")
    lab.store.update(rule, [run])
    lab.now += 1000
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    assert lab.rows.get(box.id).state is State.RUNNING  # type: ignore[union-attr]
    lab.ends(box.id, 3)
    await lab.settle()
    (run,) = lab.store.runs(rule.id)
    assert (run.outcome, run.exit_code, run.due) == (Outcome.EXITED, 3, NOW)
    assert run.began == NOW + 1000, "it lasts as long as it may from then on"


@pytest.mark.parametrize(("missed", "late"), [("run", 5000), ("skip", 30), ("skip", 90)])
async def test_a_daemon_that_dies_before_the_instance(lab: Lab, missed: str, late: float) -> None:
    rule = lab.create(missed=Missed(missed))
    lab.store.update(rule, [Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, name="s-1")])
    lab.now += late
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    begins = missed == "run" or late <= GRACE
    assert lab.made == (["s-1"] if begins else [])
    (run,) = lab.store.runs(rule.id)
    assert run.outcome is (Outcome.RUNNING if begins else Outcome.MISSED)


@pytest.mark.parametrize("overlap", Overlap)
async def test_one_run_makes_up_for_one_that_was_cut_off_too(lab: Lab, overlap: Overlap) -> None:
    rule = lab.create("every 1h", overlap=overlap)
    lab.store.update(rule, [Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, name="s-1")])
    lab.now += 2 * 3600 + 5
    lab.up()
    lab.tasks.start("schedules", lab.schedules.watch())
    await lab.settle()
    assert lab.outcomes() == ["running", "missed", "missed"]
    assert len(lab.made) == 1


async def test_nobody_knows_whether_what_is_deleted_at_its_end_has_run(lab: Lab) -> None:
    rule = lab.create(spec=replace(SPEC, remove=True))
    lab.store.update(rule, [Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, name="s-1")])
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    (run,) = lab.store.runs(rule.id)
    assert (run.outcome, run.exit_code, lab.made) == (Outcome.FAILED, None, [])
    assert "during its start" in run.reason


async def test_what_ran_before_is_still_left_alone(lab: Lab) -> None:
    """Though the daemon was killed before it noted that."""
    lab.add("box", State.RUNNING, started=NOW - 100, wanted=True)
    rule = lab.create(spec=None, start="box")
    lab.store.update(rule, [Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW)])
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    assert lab.outcomes() == ["skipped"]


@pytest.mark.parametrize("noted", [False, True])
async def test_a_run_that_ends_while_there_is_no_daemon(lab: Lab, noted: bool) -> None:
    rule = lab.create()
    row = lab.add("s-1", started=NOW + 1, exit_code=3, finished=NOW + 5, wanted=True)
    run = Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, name="s-1")
    lab.store.update(rule, [replace(run, instance=row.id if noted else "")])
    lab.now += 1000
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    (run,) = lab.store.runs(rule.id)
    assert (run.outcome, run.exit_code, run.instance) == (Outcome.EXITED, 3, row.id)
    assert (run.ended, run.cost) == (NOW + 5, 0.5)


async def test_a_strangers_instance_of_that_name_is_left_alone(lab: Lab) -> None:
    rule = lab.create()
    row = lab.add("s-1", State.RUNNING, started=NOW + 1)
    lab.rows.update(replace(row, spec=replace(row.spec, labels={})))
    run = Run(0, rule.id, NOW, Outcome.RUNNING, began=NOW, name="s-1")
    lab.store.update(rule, [run])
    lab.runs.recover(rule)
    await lab.settle()
    await lab.schedules.remove("s", force=True)
    assert [each.name for each in lab.rows.all()] == ["s-1"]


async def test_a_run_that_is_replaced_before_it_has_an_instance(lab: Lab) -> None:
    lab.create(overlap=Overlap.REPLACE)
    lab.held.clear()
    for _ in range(2):
        lab.schedules.run("s")
        await lab.settle()
    assert lab.outcomes() == ["queued", "running"]
    lab.held.set()
    await lab.settle()
    assert lab.outcomes() == ["running", "replaced"]


async def test_a_run_that_somebody_stops(lab: Lab) -> None:
    lab.create()
    lab.schedules.run("s")
    await lab.settle()
    await lab.stop(lab.made[0])
    await lab.settle()
    assert lab.outcomes() == ["stopped"]


async def test_a_rule_that_is_removed_begins_no_run(lab: Lab) -> None:
    rule = lab.create("every 1s")
    lab.tasks.start("watch", lab.schedules.watch())
    lab.schedules.run("s")
    await lab.settle()
    removing = lab.tasks.start("remove", lab.schedules.remove("s", force=True))
    for _ in range(30):
        lab.now += 1
        lab.schedules._changed.set()
        await asyncio.sleep(0)
    await removing
    await lab.settle()
    assert (lab.rows.all(), lab.store.every(), lab.store.runs(rule.id)) == ([], [], [])


async def test_a_pause_ends_the_waiting(lab: Lab) -> None:
    lab.create(overlap=Overlap.QUEUE)
    for _ in range(2):
        lab.schedules.run("s")
        await lab.settle()
    lab.schedules.pause("s")
    lab.ends(lab.made[0])
    await lab.settle()
    assert lab.outcomes() == ["skipped", "exited"]
    assert len(lab.made) == 1


async def test_a_machine_that_falls_asleep_is_woken_by_the_next_run(lab: Lab) -> None:
    box = lab.add("box")
    rule = lab.create(spec=None, start="box")
    lab.schedules.run("s")
    await lab.settle()
    asleep = replace(lab.rows.get(box.id) or box, state=State.HIBERNATED)
    lab.rows.update(asleep)
    lab.events.publish("instance.hibernated", box.id)
    await lab.settle()
    (run,) = lab.store.runs(rule.id)
    assert (run.outcome, run.exit_code, run.reason) == (Outcome.STOPPED, None, "it was hibernated")
    lab.schedules.run("s")
    await lab.settle()
    assert lab.outcomes() == ["running", "stopped"]
    await lab.down()
    lab.rows.update(asleep)  # while there is no daemon
    lab.up()
    lab.runs.recover(rule)
    await lab.settle()
    assert lab.outcomes() == ["stopped", "stopped"]


async def test_a_run_waits_for_room_where_there_is_none(lab: Lab) -> None:
    lab.create()
    lab.full = True
    lab.schedules.run("s")
    await lab.settle()
    assert (lab.outcomes(), lab.waited) == (["running"], 1)


async def test_a_time_is_one_line(lab: Lab) -> None:
    assert lab.create(" 0\n0 *\x1f* *\t").when == "0 0 * * *"


async def test_a_full_disk_ends_no_watch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.create("every 1s")
    monkeypatch.setattr(lab.store, "update", lambda *_: 1 / 0)
    task = lab.tasks.start("watch", lab.schedules.watch())
    lab.now += 2
    await lab.settle()
    assert not task.done()
    monkeypatch.undo()
    lab.schedules._changed.set()
    await lab.settle()
    assert lab.outcomes()[0] == "running"
