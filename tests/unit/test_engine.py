"""The engine's own pieces, without a host: plans, slots, capacity, locks, operations."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import slots
from sublet.domain.capacity import Amount, admit, rentable, sold
from sublet.domain.errors import Cancelled, InsufficientCapacity, InvalidArgument
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance, State
from sublet.domain.progress import Report
from sublet.domain.size import Size
from sublet.domain.spec import InstanceSpec, Market
from sublet.engine import plan
from sublet.engine.locks import Locks
from sublet.engine.operations import Operations, Progress
from sublet.engine.tasks import Tasks


def an_instance(state: State = State.RUNNING, **spec: object) -> Instance:
    request = InstanceSpec(image="i", **{"cpus": 1.0, "memory": 1 << 30, **spec})  # type: ignore[arg-type]
    return Instance("0123456789ab", "n", "i", "d", request, 1, state, 0.0)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, (), ("e", "c")),
        (None, ("x",), ("e", "x")),
        (("n",), (), ("n",)),
        (("n",), ("x",), ("n", "x")),
        ((), ("x",), ("x",)),
    ],
)
def test_entrypoint_and_command_combine_as_docker_does(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    config = ImageConfig(entrypoint=("e",), cmd=("c",))
    instance = an_instance(entrypoint=entrypoint, command=command)
    assert plan.arguments(instance, config) == expected


async def test_what_goes_on_for_ever_is_begun_again_where_it_fails() -> None:
    tasks, begun, twice = Tasks(), [], asyncio.Event()
    tasks.again = 0.0

    async def work() -> None:
        begun.append(1)
        if len(begun) == 1:
            raise OSError("The disk is full.")
        twice.set()
        await asyncio.Event().wait()

    task = tasks.keep("work", work)
    await asyncio.wait_for(twice.wait(), 10)
    await tasks.close()
    assert (len(begun), task.cancelled()) == (2, True)


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        plan.arguments(an_instance(), ImageConfig())


def test_environment_later_wins() -> None:
    config = ImageConfig(env=("A=image", "PATH=/p"))
    found = plan.environment(config, ("A=tenant", "B="), "h", tty=True)
    assert dict(entry.split("=", 1) for entry in found) == {
        **{"A": "tenant", "PATH": "/p", "B": "", "TERM": "xterm", "HOSTNAME": "h"}
    }


@given(st.integers(0, slots.COUNT), st.sets(st.integers(1, slots.COUNT), max_size=50))
def test_slots_are_free_and_in_turn(last: int, taken: set[int]) -> None:
    found = slots.following(last, taken)
    assert found not in taken
    assert 1 <= found <= slots.COUNT
    between = range(last + 1, found) if found > last else range(0)
    assert all(slot in taken for slot in between)


def test_no_slot_left() -> None:
    with pytest.raises(InsufficientCapacity):
        slots.following(5, set(range(1, slots.COUNT + 1)))


def test_memory_is_never_sold_twice() -> None:
    total = rentable(2, 8 << 30, 16, 1 << 30)
    assert total == Amount(32, 7 << 30)
    held = sold([an_instance(), an_instance(State.STOPPED)], Market.ON_DEMAND)
    assert held == Amount(1, 1 << 30)
    admit(Size(1, 6 << 30), total - held)
    with pytest.raises(InsufficientCapacity, match="memory"):
        admit(Size(1, (6 << 30) + 1), total - held)
    with pytest.raises(InsufficientCapacity, match="vCPUs"):
        admit(Size(32, 1 << 20 << 3), total - held)


async def test_one_lock_per_key() -> None:
    locks, order = Locks(), []

    async def work(name: str) -> None:
        async with locks.hold("k", name):
            order.append((name, locks.action("k")))
            await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    assert order == [("a", "a"), ("b", "b")]
    assert locks.action("k") == ""


async def test_an_operation_tells_its_progress_and_result() -> None:
    operations = Operations(Tasks())

    async def work(report: Report) -> str:
        report("one")
        await asyncio.sleep(0)
        report("two")
        return "made"

    operation = operations.start("build", work)
    assert [line async for line in operation.follow()] == ["one", "two"]
    assert (operation.state, operation.result) == (Progress.DONE, "made")


async def test_an_operation_is_cancelled_after_its_clean_up() -> None:
    operations, cleaned = Operations(Tasks()), []

    async def work(report: Report) -> None:
        report("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    operation = operations.start("pull", work)
    assert await anext(operation.follow()) == "begun"
    await operations.cancel(operation.id)
    assert cleaned == [True]
    assert isinstance(operation.error, Cancelled)
