"""Restart policies: the rule, and the engine that follows it, on a clock of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sublet.domain.errors import InsufficientCapacity, InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.restart import History, again, at_boot, check_restart, parse_restart, pause
from sublet.domain.spec import InstanceSpec
from sublet.engine.restarts import Restarts
from sublet.engine.tasks import Tasks


@pytest.mark.parametrize(
    ("policy", "history", "expected", "booted"),
    [
        ("no", (1, True, 0), False, False),
        ("always", (0, True, 99), True, True),
        ("always", (0, False, 0), False, True),
        ("unless-stopped", (0, True, 0), True, True),
        ("unless-stopped", (0, False, 0), False, False),
        ("on-failure", (0, True, 0), False, False),
        ("on-failure", (1, True, 99), True, True),
        ("on-failure", (1, False, 0), False, False),
        ("on-failure:2", (1, True, 1), True, True),
        ("on-failure:2", (1, True, 2), False, False),
    ],
)
def test_who_is_started_again(
    policy: str, history: tuple[int, bool, int], expected: bool, booted: bool
) -> None:
    assert again(parse_restart(policy), History(*history)) is expected
    assert at_boot(parse_restart(policy), History(*history)) is booted


def test_pauses_double_up_to_a_minute_and_begin_again_after_a_steady_run() -> None:
    pauses = [0.0]
    for _ in range(12):
        pauses.append(pause(pauses[-1], 9.9))
    assert pauses[1:6] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == 60
    assert pause(60, 10) == 0.1


@pytest.mark.parametrize("text", ["sometimes", "always:3", "on-failure:", "on-failure:x", ""])
def test_policies_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_restart(text)


def test_an_instance_that_is_deleted_at_its_end_has_no_policy() -> None:
    with pytest.raises(InvalidArgument):
        check_restart(parse_restart("always"), remove=True)


class World:
    """A store, a life cycle, events and a clock, as far as Restarts needs them. The instance
    crashes as soon as it runs."""

    def __init__(self, policy: str, **values: Any) -> None:
        spec = InstanceSpec("i", cpus=1, memory=1 << 30, restart=parse_restart(policy))
        values = {"state": State.STOPPED, "started": 5.0, "finished": 6.0, **values}
        values = {"exit_code": 1, "wanted": True, **values}
        self.row: Instance | None = Instance(
            "0123456789ab", "n", "i", "d", spec, 1, created=0.0, **values
        )
        self.parts, self.store, self.tasks = self, self, Tasks()
        self.slept: list[float] = []
        self.starts = 0
        self.full = self.broken = False
        self.until = 5
        self.restarts = Restarts(self, self.admit, self.sleep)  # type: ignore[arg-type]

    def permit(self, spec: InstanceSpec, instance_id: str) -> None:
        """No budget is used up."""

    def all(self) -> list[Instance]:
        return [self.row] if self.row else []

    def get(self, _: str) -> Instance | None:
        return self.row

    def update(self, row: Instance) -> None:
        self.row = row

    def tell(self, *_: object, **__: object) -> None:
        pass

    def move(self, row: Instance, state: State) -> Instance:
        self.row = replace(row, state=state)
        return self.row

    async def launch(self, row: Instance) -> None:
        self.starts += 1
        self.row = replace(row, state=State.STOPPED)
        if self.broken:
            raise OSError("no such device")
        self.restarts.up(self.row)
        self.restarts.ended(self.row)

    async def admit(self, _: InstanceSpec) -> None:
        if self.full:
            raise InsufficientCapacity("no room")

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) > self.until:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await self.tasks.close()


async def test_a_crash_loop_backs_off() -> None:
    world = World("always")
    world.restarts.ended(world.all()[0])
    await world.settle()
    assert world.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert world.starts == world.all()[0].restarts == 5


async def test_so_many_times_and_no_more() -> None:
    world = World("on-failure:2")
    world.restarts.ended(world.all()[0])
    await world.settle()
    assert world.slept == [0.1, 0.2]
    assert world.all()[0].restarts == 2


@pytest.mark.parametrize(
    "change",
    [{"wanted": False}, {"state": State.RUNNING}, {"spec": InstanceSpec("i")}, None],
)
async def test_what_was_stopped_started_or_removed_meanwhile_is_left_alone(
    change: dict[str, Any] | None,
) -> None:
    world = World("always")
    world.restarts.ended(world.all()[0])
    world.row = None if change is None else replace(world.all()[0], **change)
    await world.settle()
    assert world.starts == 0


@pytest.mark.parametrize("trouble", ["full", "broken"])
async def test_a_start_that_fails_is_tried_again(trouble: str) -> None:
    world = World("unless-stopped")
    setattr(world, trouble, True)
    world.restarts.ended(world.all()[0])
    await world.settle()
    assert world.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]


@pytest.mark.parametrize(
    ("policy", "values", "starts"),
    [
        ("always", {"wanted": False}, 1),
        ("unless-stopped", {"wanted": False}, 0),
        ("unless-stopped", {}, 1),
        ("always", {"started": 0.0}, 0),
        ("always", {"state": State.RUNNING}, 0),
        ("on-failure", {"exit_code": None}, 1),
        ("no", {}, 0),
    ],
)
async def test_what_is_down_when_the_daemon_comes_up(
    policy: str, values: dict[str, Any], starts: int
) -> None:
    world = World(policy, **values)
    world.until = 1
    world.restarts.recover()
    await world.settle()
    assert world.starts == starts
