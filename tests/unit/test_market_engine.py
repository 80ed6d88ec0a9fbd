"""The market at work, on a clock that the test sets: notices, admissions, returns, the price."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sublet.domain.capacity import Amount
from sublet.domain.config import Config
from sublet.domain.errors import HostDrained, InsufficientCapacity, PriceTooLow
from sublet.domain.event import Event
from sublet.domain.instance import Instance, State
from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.pressure import pressed
from sublet.domain.size import Size
from sublet.domain.spec import InstanceSpec
from sublet.domain.spot import Spot, Status
from sublet.drivers.pressure import available, average
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.market import MarketStore
from sublet.engine import market, notices
from sublet.engine import pressure as watched
from sublet.engine.events import Events
from sublet.engine.market import SpotMarket
from sublet.engine.pressure import Pressure
from sublet.engine.pricing import Pricing
from sublet.engine.rehearsal import last_backup
from sublet.engine.returns import Returns
from sublet.engine.tasks import Tasks

GIB = 1 << 30


@dataclass
class Clock:
    """A wall clock that stands still until it is set."""

    time: float = 1000.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return self.time

    async def until(self, moment: float) -> None:
        while self.time < moment:
            self.changed.clear()
            await self.changed.wait()

    async def set(self, moment: float) -> None:
        self.time = moment
        self.changed.set()
        await settle()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not come about")


class Lab:
    """A host that sells 4 GiB. What would be done to instances is done to their rows alone."""

    def __init__(self, path: Path, clock: Clock, **config: Any) -> None:
        self.database = Database(path)
        self.store, self.clock = InstanceStore(self.database), clock
        self.tasks, self.told = Tasks(), [""]
        self.config = Config(**{"price_lag": 0.0, **config})
        parts = SimpleNamespace(
            config=self.config,
            store=self.store,
            events=Events(self.store),
            tasks=self.tasks,
            rentable=Amount(64.0, 4 * GIB),
        )
        self.parts, self.restarting = parts, set[str]()
        self.broken = False
        self.market = SpotMarket(
            cast(Any, self), MarketStore(self.database), clock.now, clock.until
        )
        self.lifecycle = self

    def tell(self, what: str, row: Instance, **_: str) -> None:
        self.told.append(f"{what} {row.name}")

    def add(self, name: str, gib: int, spot: Spot | None = None, pool: str = "") -> Instance:
        spec = InstanceSpec("i", cpus=1, memory=gib * GIB, spot=spot)
        spec = spec.with_defaults(Size(1, GIB))
        slot = len(self.store.all()) + 1
        row = Instance(
            name, name, "i", "d", spec, slot, State.PENDING, self.clock.time, wanted=True
        )
        row = replace(row, pool=pool)
        self.store.add(row)
        return self.move(row, State.RUNNING)

    def move(self, row: Instance, state: State) -> Instance:
        row = replace(row, state=state)
        self.store.update(row)
        return row

    # As the engine's `ending`, and as Instances

    async def stop(self, _: Any, row: Instance, timeout: float) -> None:
        self.move(row, State.STOPPED)

    async def remove(self, _: Any, row: Instance, *, force: bool, volumes: bool) -> None:
        if self.broken:
            raise InsufficientCapacity("it hangs")
        self.store.delete(row.id)

    async def stop_first(self, _: Any, row: Instance, **__: bool) -> None:
        self.move(row, State.STOPPED)
        await asyncio.Event().wait()

    async def start(self, instance_id: str) -> None:
        row = self.store.get(instance_id)
        assert row is not None
        self.market.admit_now(row.spec)
        self.move(self.move(row, State.PENDING), State.RUNNING)

    def request(self, instance_id: str) -> Status:
        found = self.market.requests.of(instance_id)
        assert found is not None
        return found.status

    async def close(self) -> None:
        await self.tasks.close()
        self.database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lab(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "db", clock)
    monkeypatch.setattr(notices, "ending", made)
    yield made
    await made.close()


async def test_a_notice_is_carried_out_at_its_deadline_and_not_before(
    lab: Lab, clock: Clock
) -> None:
    row = lab.add("a", 1, Spot())
    [given] = lab.market.reclaim([row])
    assert (given.action, given.reason, given.deadline) == (Action.TERMINATE, Reason.OWNER, 1120.0)
    await settle()
    assert lab.request("a") is Status.MARKED_FOR_TERMINATION
    await clock.set(1119.9)
    assert lab.store.get("a")
    await clock.set(1120.0)
    assert lab.store.get("a") is None
    assert lab.request("a") is Status.TERMINATED_NO_CAPACITY
    assert lab.market.notice("a") is None


async def test_a_deadline_may_only_come_nearer(lab: Lab, clock: Clock) -> None:
    row = lab.add("a", 1, Spot(on_reclaim=Action.STOP))
    lab.market.reclaim([row])
    await clock.set(1050.0)
    assert lab.market.reclaim([row])[0].deadline == 1120.0
    lab.market.reclaim([row], notice=0.0)
    await settle()
    assert lab.request("a") is Status.STOPPED_NO_CAPACITY
    assert lab.told.count("notice a") == 2


async def test_the_next_daemon_knows_what_is_due(
    lab: Lab, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [lab.add(name, 1, Spot(on_reclaim=Action.STOP)) for name in ("due", "later")]
    lab.market.reclaim(rows[:1])
    clock.time = 1060.0
    lab.market.reclaim(rows[1:])
    await lab.tasks.close()  # killed
    clock.time = 1130.0
    other = Lab(tmp_path / "db", clock)
    monkeypatch.setattr(notices, "ending", other)
    seen: list[str] = []
    other.market.observers.append(
        cast(Any, SimpleNamespace(noticed=lambda n: seen.append(n.instance)))
    )
    other.market.notices.recover()
    await settle()
    assert seen == ["due", "later"]
    assert [row.state for row in other.store.all()] == [State.STOPPED, State.RUNNING]
    await clock.set(1180.0)
    assert [row.state for row in other.store.all()] == [State.STOPPED, State.STOPPED]
    assert other.request("due") is Status.STOPPED_NO_CAPACITY
    await other.close()


async def test_an_end_of_its_own_withdraws_a_notice(lab: Lab, clock: Clock) -> None:
    row = lab.add("a", 1, Spot(on_reclaim=Action.STOP))
    withdrawn: list[Notice] = []
    observer = SimpleNamespace(noticed=lambda notice: None, withdrawn=withdrawn.append)
    lab.market.observers.append(cast(Any, observer))
    lab.market.reclaim([row])
    await settle()
    lab.move(row, State.STOPPED)
    assert [notice.instance for notice in withdrawn] == ["a"]
    assert lab.request("a") is Status.STOPPED_BY_USER
    row = lab.move(row, State.RUNNING)
    await clock.set(2000.0)
    assert lab.store.get("a") == row, "what it was told before is over"


async def test_made_stopped_is_no_failure(lab: Lab) -> None:
    """As `restore` makes what was stopped when it was backed up."""
    row = lab.add("a", 1, Spot(on_reclaim=Action.STOP))
    made = lab.move(row, State.PENDING)
    lab.move(replace(made, reason="no such program"), State.STOPPED)
    assert lab.request("a") is Status.SYSTEM_ERROR
    row = lab.add("b", 1, Spot(on_reclaim=Action.STOP))
    lab.move(lab.move(row, State.PENDING), State.STOPPED)
    assert lab.request("b") is Status.PENDING_EVALUATION
    lab.store.delete("b")
    assert lab.request("b") is Status.TERMINATED_BY_USER


async def test_an_on_demand_start_waits_for_what_it_needs(lab: Lab, clock: Clock) -> None:
    for name in ("a", "b", "c", "d"):
        lab.add(name, 1, Spot())
    with pytest.raises(InsufficientCapacity):
        await lab.market.admit(spec(2), wait=False)
    with pytest.raises(InsufficientCapacity):
        await lab.market.admit(spec(5))
    assert not any(lab.market.notice(name) for name in "abcd")
    said: list[str] = []
    waiting = asyncio.ensure_future(lab.market.admit(spec(2), report=said.append))
    await settle()
    assert sum(lab.market.notice(name) is not None for name in "abcd") == 2
    assert "2 spot instances" in said[0]
    later = asyncio.ensure_future(lab.market.admit(spec(1)))
    await settle()
    assert sum(lab.market.notice(name) is not None for name in "abcd") == 3, "none too many"
    assert not waiting.done()
    assert lab.market.free() == Amount(58, -3 * GIB)
    await clock.set(1120.0)
    assert waiting.done()
    lab.add("od", 2)
    await settle()
    assert later.done()
    with pytest.raises(InsufficientCapacity):
        lab.market.admit_now(replace(spec(2), spot=Spot()))


async def test_who_gives_up_claims_nothing(lab: Lab) -> None:
    lab.add("a", 4, Spot())
    waiting = asyncio.ensure_future(lab.market.admit(spec(2)))
    await settle()
    assert lab.market.free().memory == -2 * GIB
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert lab.market.free().memory == 0


def spec(gib: int) -> InstanceSpec:
    return InstanceSpec("i", cpus=1, memory=gib * GIB)


async def test_a_restart_keeps_its_room_and_its_notice(lab: Lab) -> None:
    row = lab.add("a", 3, Spot())
    lab.market.reclaim([row])
    lab.restarting.add("a")
    row = lab.move(row, State.STOPPED)
    assert lab.market.free().memory == GIB
    assert lab.market.notice("a")
    await lab.market.admit(row.spec, key="a")
    lab.move(row, State.PENDING)
    assert lab.market.free().memory == GIB


async def test_who_waits_does_not_get_what_is_kept(lab: Lab, clock: Clock) -> None:
    """A VM that wakes, or an instance that restarts, has been admitted: its room is its own,
    whoever came to wait before."""
    lab.add("a", 2, Spot())
    row = lab.add("b", 2)
    waiting = asyncio.ensure_future(lab.market.admit(spec(2)))
    await settle()
    lab.restarting.add("b")
    row = lab.move(row, State.STOPPED)
    await settle()
    assert not waiting.done()
    assert lab.market.claims.free("b").memory == 2 * GIB
    await lab.market.admit(row.spec, key="b", wait=False)
    lab.move(row, State.PENDING)
    await settle()
    assert not waiting.done()
    await clock.set(1120.0)
    assert waiting.done()


async def test_one_that_grows_takes_the_room_of_spot(lab: Lab, clock: Clock) -> None:
    lab.add("a", 3, Spot())
    row = lab.add("od", 1)
    larger = replace(row.spec, memory=2 * GIB)
    with pytest.raises(InsufficientCapacity):
        async with lab.market.more(larger, Amount(0, GIB), wait=False):
            pass
    with pytest.raises(InsufficientCapacity):
        async with lab.market.more(larger, Amount(0, 4 * GIB)):
            pass
    assert lab.market.notice("a") is None
    said: list[str] = []

    async def grow() -> None:
        async with lab.market.more(larger, Amount(0, GIB), report=said.append) as free:
            assert free() == Amount(63, 3 * GIB)
            assert lab.market.free().memory == 2 * GIB, "others cannot have it meanwhile"
            lab.store.update(replace(row, spec=larger))

    growing = asyncio.ensure_future(grow())
    await settle()
    assert "1 spot instance: a" in said[0]
    await clock.set(1120.0)
    assert growing.done()
    await growing
    assert lab.market.free().memory == 2 * GIB


async def test_cpus_grow_where_others_wait_for_memory(lab: Lab) -> None:
    lab.add("a", 4, Spot())
    waiting = asyncio.ensure_future(lab.market.admit(spec(2)))
    await settle()
    async with lab.market.more(spec(1), Amount(2.0, 0), wait=False):
        pass
    assert sum(lab.market.notice(name) is not None for name in "a") == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_gives_up_lets_the_next_look(lab: Lab) -> None:
    lab.add("a", 2, Spot())
    lab.add("b", 1, Spot())
    first = asyncio.ensure_future(lab.market.admit(spec(3)))
    await settle()
    second = asyncio.ensure_future(lab.market.admit(spec(1)))
    await settle()
    assert not second.done(), "there is room, but somebody was first"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await settle()
    assert second.done()


async def test_the_price_takes_and_gives_back(lab: Lab, clock: Clock) -> None:
    most = lab.config.prices.hourly(Size(1, GIB)) / 2
    thrifty = Spot(most, Action.STOP, persistent=True)
    lab.add("a", 1, thrifty)
    task = lab.tasks.start("price", lab.market.pricing.watch())
    back = lab.tasks.start("returns", Returns(lab.market, cast(Any, lab)).watch())
    od = lab.add("od", 2)
    await settle()
    assert lab.market.factor() == 0.6
    assert lab.request("a") is Status.MARKED_FOR_STOP
    with pytest.raises(PriceTooLow):
        lab.market.admit_now(replace(spec(1), spot=thrifty))
    await clock.set(1120.0)
    assert lab.request("a") is Status.STOPPED_BY_PRICE
    lab.store.delete(od.id)
    await settle()
    assert lab.market.factor() == 0.2
    assert lab.request("a") is Status.STOPPED_BY_PRICE, "it rests"
    clock.time = 1181.0
    lab.market.claims.wake()
    await settle()
    assert lab.request("a") is Status.FULFILLED
    assert not task.done()
    assert not back.done()
    factors = [quote.factor for quote in lab.market.store.quotes(0)]
    assert factors == [0.2, 0.6, 0.2]
    [since] = [quote.factor for quote in lab.market.store.quotes(1e9)]
    assert since == 0.2, "what held then"


def test_a_price_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    store, used = MarketStore(Database(tmp_path / "db")), [0.0]
    pricing = Pricing(store, lambda: used[0], 300.0, clock.now)
    assert (pricing.factor, pricing.look()) == (0.2, False)
    clock.time += 10_000
    used[0] = 1.0
    pricing.changed()
    assert pricing.look() is True
    assert pricing.factor == 0.2, "a rest does not count"
    clock.time += 300
    pricing.look()
    assert pricing.factor == pytest.approx(0.706, abs=0.001)
    clock.time += 300
    again = Pricing(store, lambda: used[0], 300.0, clock.now)
    assert again.factor == pricing.factor
    again.look()
    assert again.factor == pytest.approx(0.892, abs=0.001)


async def test_a_drained_host_starts_nothing_and_remembers(
    lab: Lab, clock: Clock, tmp_path: Path
) -> None:
    lab.add("a", 1, Spot())
    assert len(lab.market.drain()) == 1
    with pytest.raises(HostDrained):
        await lab.market.admit(spec(1))
    other = Lab(tmp_path / "db", clock)
    assert other.market.draining
    other.market.undrain()
    await other.market.admit(spec(1))
    other.database.close()


async def test_pressure_takes_a_part_at_a_time(lab: Lab, clock: Clock) -> None:
    for name in ("a", "b", "c"):
        lab.add(name, 1, Spot())
    average = {"memory": 59.0}
    left = [0.5]
    pressure = Pressure(lab.market, lambda what: average[what], lambda: left[0])
    pressure.look()
    assert not lab.market.pressed, "somebody has come to his own limit"
    left[0] = 0.1
    pressure.look()
    assert lab.market.pressed == ""
    average["memory"] = 61.0
    pressure.look()
    pressure.look()
    assert sum(lab.market.notice(name) is not None for name in "abc") == 1
    with pytest.raises(InsufficientCapacity, match="memory"):
        lab.market.admit_now(replace(spec(1), spot=Spot()))
    lab.market.admit_now(spec(1))
    await clock.set(1130.0)
    pressure.look()
    assert sum(lab.market.notice(name) is not None for name in "abc") == 1, "the next one"
    average["memory"] = 41.0
    pressure.look()
    assert lab.market.pressed == ""


async def test_what_nobody_uses_goes_first_under_pressure(lab: Lab, clock: Clock) -> None:
    lab.add("a", 1, Spot())
    average = {"memory": 61.0}
    gone: list[str] = []
    lab.market.spares.remove = lambda row: gone.append(row.id)
    for name in ("x", "y"):
        lab.add(name, 1, pool="p")
    pressure = Pressure(lab.market, lambda what: average[what], lambda: 0.1)
    pressure.look()
    assert gone == ["x", "y"]
    pressure.look()
    assert lab.market.notice("a") is None, "first it is seen what that has brought"
    for name in gone:
        lab.store.delete(name)
    await clock.set(clock.time + 11)
    pressure.look()
    assert lab.market.notice("a") is not None


async def test_pressure_is_over_though_nothing_is_left_to_take_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "INTERVAL", 0.01)
    average = {"memory": 61.0}
    lab.add("a", 1, Spot())
    watch = Pressure(lab.market, lambda what: average[what], lambda: 0.1).watch()
    lab.tasks.start("pressure", watch)
    await until(lambda: lab.market.pressed == "memory")
    lab.store.delete("a")
    average["memory"] = 0.0
    await until(lambda: lab.market.pressed == "")


async def test_what_waits_in_a_pool_makes_nothing_dearer(lab: Lab) -> None:
    row = lab.add("x", 2, pool="p")
    assert lab.market.used() == 0
    assert lab.market.free() == Amount(63.0, 2 * GIB)
    lab.store.update(replace(row, pool=""))
    assert lab.market.used() == 0.5
    lab.market.pricing.look()
    assert lab.market.factor() == 0.6


def test_the_memory_that_can_be_had(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       100 kB\nMemFree:    1 kB\nMemAvailable:         25 kB\n")
    assert available(file) == 0.25
    assert 0 < available() <= 1


def test_pressure_has_hysteresis(tmp_path: Path) -> None:
    limits = {"memory": 60.0, "cpu": 90.0}
    assert pressed("", {"memory": 59.9, "cpu": 89.0}, limits) == ""
    assert pressed("", {"memory": 61.0, "cpu": 99.0}, limits) == "cpu"
    assert pressed("memory", {"memory": 42.1, "cpu": 99.0}, limits) == "memory"
    assert pressed("memory", {"memory": 41.9}, limits) == ""
    (tmp_path / "memory").write_text("some avg10=12.34 avg60=0.00 total=1\nfull avg10=9.00\n")
    assert average("memory", tmp_path) == 12.34
    assert average("io", tmp_path) == 0.0


async def test_a_deletion_that_was_cut_off_is_finished(
    lab: Lab, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "remove", lab.stop_first)
    lab.market.reclaim([lab.add("a", 1, Spot())], notice=0.0)
    await settle()
    await lab.tasks.close()  # killed when it had stopped
    other = Lab(tmp_path / "db", clock)
    monkeypatch.setattr(notices, "ending", other)
    assert [row.state for row in other.store.all()] == [State.STOPPED]
    other.market.notices.recover()
    await settle()
    assert other.store.all() == []
    assert other.request("a") is Status.TERMINATED_NO_CAPACITY
    assert other.market.store.notices() == []
    await other.close()


@pytest.mark.parametrize(
    ("spot", "taken", "found"),
    [
        (Spot(), True, Status.TERMINATED_NO_CAPACITY),
        (Spot(), False, Status.TERMINATED_BY_USER),
        (Spot(on_reclaim=Action.STOP, persistent=True), True, Status.STOPPED_NO_CAPACITY),
        (Spot(on_reclaim=Action.STOP, persistent=True), False, Status.STOPPED_BY_USER),
    ],
)
async def test_a_request_follows_its_row_across_a_crash(
    lab: Lab, clock: Clock, tmp_path: Path, spot: Spot, taken: bool, found: Status
) -> None:
    """The daemon is killed between the transaction that writes the row and that of the request."""
    row = lab.add("a", 1, spot)
    if taken:
        lab.market.notices.give([row], Reason.CAPACITY, 120.0)
        lab.market.store.begin("a")
    lab.store.listeners.clear()
    if spot.persistent:
        lab.move(row, State.STOPPED)
    else:
        lab.store.delete("a")
    other = Lab(tmp_path / "db", clock)
    other.market.recover()
    assert other.request("a") is found
    assert bool(other.market.requests.wanted()) is (spot.persistent and taken)
    await other.close()


async def test_a_request_is_filled_though_nobody_noted_it(
    lab: Lab, clock: Clock, tmp_path: Path
) -> None:
    spot = Spot(on_reclaim=Action.STOP, persistent=True)
    row = lab.move(lab.add("a", 1, spot), State.STOPPED)
    lab.store.listeners.clear()
    lab.move(row, State.RUNNING)
    other = Lab(tmp_path / "db", clock)
    other.market.recover()
    assert other.request("a") is Status.FULFILLED
    await other.close()


async def test_a_reclaim_that_fails_is_tried_again(
    lab: Lab, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "RETRY", 0)
    row, lab.broken = lab.add("a", 1, Spot()), True
    lab.market.reclaim([row], notice=0.0)
    await settle()
    assert lab.store.get("a")
    lab.broken = False
    await settle()
    assert lab.store.get("a") is None


async def test_nobody_waits_for_ever_for_a_reclaim_that_fails(lab: Lab, clock: Clock) -> None:
    """Others make room in its place while there are any; then it is said what does not go."""
    lab.add("stuck", 2, Spot())
    lab.add("other", 2, Spot(max_price=1.0, on_reclaim=Action.STOP))
    lab.broken = True
    lab.market.reclaim([lab.store.get("stuck")])  # type: ignore[list-item]
    first = asyncio.ensure_future(lab.market.admit(spec(2)))
    await settle()
    await clock.set(1000.0 + 120 + notices.LATE - 1)
    lab.market.claims.wake()
    await settle()
    assert not first.done()
    assert lab.market.notice("other") is None
    await clock.set(1000.0 + 120 + notices.LATE)
    lab.market.claims.wake()
    await settle()
    assert lab.market.notice("other")
    await clock.set(clock.time + 120)
    await first
    lab.add("od", 2)
    with pytest.raises(InsufficientCapacity, match="room of stuck was to be free"):
        await lab.market.admit(spec(2))


async def test_a_wait_has_an_end_of_its_own(
    lab: Lab, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the end of what is waited for was begun by somebody else, without a notice."""
    monkeypatch.setattr(market, "LATE", -0.9)
    lab.move(lab.add("slow", 4, Spot()), State.STOPPING)
    with pytest.raises(InsufficientCapacity, match="room of slow was to be free"):
        await lab.market.admit(spec(2))
    assert lab.market.free().memory == 0, "it claims nothing any more"


def test_the_last_complete_backup_is_found_in_the_events() -> None:
    def event(time: float, what: str, backup: str) -> Event:
        return Event(time, f"backup.{what}", "a", {"backup": backup})

    assert last_backup([]) == 0.0
    begun = [event(1, "started", "x"), event(2, "completed", "x"), event(3, "started", "y")]
    assert last_backup(begun) == 1.0
    assert last_backup([*begun, event(4, "completed", "y")]) == 3.0


async def test_a_fork_that_is_not_to_run_holds_nothing(lab: Lab) -> None:
    """It is pending while its files are copied, and is stopped then."""
    row = lab.add("a", 3)
    lab.move(row, State.STOPPED)
    copy = replace(row, id="b", name="b", slot=9, state=State.PENDING, wanted=False)
    lab.store.add(copy)
    assert lab.market.free().memory == 4 * GIB
    lab.store.update(replace(copy, wanted=True))
    assert lab.market.free().memory == GIB
