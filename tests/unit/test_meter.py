"""The meter: whatever happens, and whenever the daemon is killed, each second is charged once."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sublet.domain.errors import NameInUse
from sublet.domain.instance import Instance, State
from sublet.domain.meter import Charge, Reading, cost, ended, lasted
from sublet.domain.spec import InstanceSpec, Market
from sublet.drivers.store.charges import ChargeStore
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.engine.meter import Meter

EPOCH = 1_700_000_000.0
SPANS = st.floats(0.0, 5000.0)


@dataclass
class Clocks:
    """The host's clocks: only the wall clock can be set."""

    wall: float = EPOCH
    monotonic: float = 100.0
    boot: str = "first"

    def read(self) -> Reading:
        return Reading(self.wall, self.monotonic, self.boot)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


class Lab:
    """A daemon's rows and its meter, on a database that outlives them."""

    def __init__(self, path: Path) -> None:
        self.path, self.clocks, self.share = path, Clocks(), 1.0
        self.open()

    def open(self) -> None:
        """As a daemon that comes up, or comes up again."""
        self.database = Database(self.path)
        self.store = InstanceStore(self.database)
        self.charges = ChargeStore(self.database)
        self.meter = Meter(
            self.store, self.charges, self.price, lambda spec: spec.cpus, self.clocks.read
        )

    def price(self, spec: InstanceSpec) -> float:
        return spec.cpus * (self.share if spec.market is Market.SPOT else 1.0)

    def add(self, name: str, market: Market = Market.ON_DEMAND) -> None:
        spec = InstanceSpec(image="i", cpus=1.0, memory=1 << 30, market=market)
        slot = len(self.store.all()) + 1
        self.store.add(Instance(name, name, "i", "d", spec, slot, State.STOPPED, self.clocks.wall))

    def move(self, name: str, state: State, **values: float | None) -> None:
        row = self.store.get(name)
        assert row
        self.store.update(replace(row, state=state, **values))  # type: ignore[arg-type]

    def start(self, name: str) -> None:
        self.move(name, State.PENDING)
        self.move(name, State.RUNNING, started=self.clocks.wall, exit_code=None)

    def stop(self, name: str, finished: float | None = None) -> None:
        finished = self.clocks.wall if finished is None else finished
        self.move(name, State.STOPPED, finished=finished, exit_code=0)

    def charged(self, name: str) -> list[tuple[float, float]]:
        """Seconds and mean price of each segment."""
        now, found = self.clocks.read(), []
        for charge in self.charges.of(name):
            seconds = lasted(charge, now)
            mean = cost(charge, seconds) / seconds * 3600 if seconds else charge.price
            found.append((seconds, round(mean, 9)))
        return found


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "db")


NAMES = ("a", "b")


class Life(RuleBasedStateMachine):
    """Instances that start, change and end, under a daemon that is killed now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.lab = Lab(self.home / "db")
        self.alive = True
        self.up: dict[str, float] = {}
        self.fell: dict[str, float] = {}
        self.due: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        self.used: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        for name, market in zip(NAMES, (Market.ON_DEMAND, Market.SPOT), strict=True):
            self.lab.add(name, market)

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @rule(seconds=SPANS)
    def time_passes(self, seconds: float) -> None:
        self.lab.clocks.go(seconds)
        for name, price in self.up.items():
            self.used[name] += seconds
            self.due[name] += seconds * price

    @precondition(lambda self: self.alive)
    @rule(seconds=st.floats(-10_000, 10_000))
    def the_clock_is_set(self, seconds: float) -> None:
        self.lab.clocks.wall += seconds

    @precondition(lambda self: self.alive)
    @rule(name=st.sampled_from(NAMES))
    def start_or_stop(self, name: str) -> None:
        if name in self.up:
            del self.up[name]
            self.lab.stop(name)
        else:
            self.lab.start(name)
            self._price(name)

    @precondition(lambda self: self.alive)
    @rule(name=st.sampled_from(NAMES))
    def pause_or_go_on(self, name: str) -> None:
        row = self.lab.store.get(name)
        assert row
        if name in self.up:
            other = State.RUNNING if row.state is State.PAUSED else State.PAUSED
            self.lab.move(name, other)

    @precondition(lambda self: self.alive)
    @rule(name=st.sampled_from(NAMES), cpus=st.integers(1, 4))
    def resize(self, name: str, cpus: int) -> None:
        row = self.lab.store.get(name)
        assert row
        self.lab.store.update(replace(row, spec=replace(row.spec, cpus=float(cpus))))
        if name in self.up:
            self._price(name)

    @precondition(lambda self: self.alive)
    @rule(share=st.floats(0.2, 1.0))
    def the_price_moves(self, share: float) -> None:
        self.lab.share = share
        self.lab.meter.repriced()
        for name in self.up:
            self._price(name)

    @precondition(lambda self: self.alive)
    @rule(look=st.booleans())
    def the_daemon_is_killed(self, look: bool) -> None:
        if look:
            self.lab.meter.look()
        self.alive = False

    @precondition(lambda self: not self.alive)
    @rule(name=st.sampled_from(NAMES))
    def it_ends_unseen(self, name: str) -> None:
        if self.up.pop(name, None):
            self.fell[name] = self.lab.clocks.wall

    @precondition(lambda self: not self.alive)
    @rule()
    def the_next_daemon_comes_up(self) -> None:
        self.lab.open()
        for name, end in self.fell.items():
            self.lab.stop(name, end)
        self.fell.clear()
        self.lab.meter.recover()
        self.alive = True

    def _price(self, name: str) -> None:
        row = self.lab.store.get(name)
        assert row
        self.up[name] = self.lab.price(row.spec)

    @invariant()
    def each_second_is_charged_once(self) -> None:
        for name in NAMES if self.alive else ():
            found = self.lab.charged(name)
            assert all(seconds >= 0 for seconds, _ in found)
            assert sum(seconds for seconds, _ in found) == pytest.approx(
                self.used[name], abs=1e-3, rel=1e-6
            )
            total = sum(seconds * price for seconds, price in found)
            assert total == pytest.approx(self.due[name], abs=1e-3, rel=1e-6)

    @invariant()
    def what_runs_has_one_segment_that_goes_on(self) -> None:
        if self.alive:
            assert set(self.lab.charges.open) == set(self.up)
            fresh = ChargeStore(self.lab.database)
            assert fresh.open == self.lab.charges.open, "memory is as the database"


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_pausing_and_renaming_begin_no_segment_and_hibernation_ends_the_start(lab: Lab) -> None:
    lab.add("a")
    lab.start("a")
    lab.clocks.go(10)
    lab.move("a", State.PAUSED)
    lab.clocks.go(10)
    lab.move("a", State.RUNNING)
    lab.move("a", State.HIBERNATING)
    lab.clocks.go(5)
    lab.move("a", State.HIBERNATED)
    lab.clocks.go(1000)
    lab.move("a", State.RUNNING, started=lab.clocks.wall)
    lab.clocks.go(7)
    assert lab.charged("a") == [(25, 1), (7, 1)]
    first, second = lab.charges.of("a")
    assert (first.run, second.run) == (first.id, second.id), "each is a start of its own"
    lab.store.delete("a")
    lab.clocks.go(50)
    assert lab.charged("a") == [(25, 1), (7, 1)], "what is deleted stays on the bill"


def test_a_row_that_cannot_be_written_charges_nothing(lab: Lab) -> None:
    lab.add("a")
    lab.add("b")
    row = lab.store.get("b")
    assert row
    with pytest.raises(NameInUse):
        lab.store.update(replace(row, name="a", state=State.RUNNING))
    assert (lab.charges.open, lab.charges.of("b")) == ({}, [])


def test_reclaimed_is_noted_of_the_last_start_running_or_not(lab: Lab) -> None:
    lab.add("a", Market.SPOT)
    for _ in range(2):
        lab.start("a")
        lab.clocks.go(10)
        lab.stop("a")
    lab.meter.reclaimed("a")
    assert [charge.reclaimed for charge in lab.charges.of("a")] == [False, True]
    lab.start("a")
    lab.meter.reclaimed("a")
    lab.clocks.go(3600)
    lab.share = 0.5
    lab.meter.repriced()
    assert [charge.reclaimed for charge in lab.charges.of("a")[2:]] == [True, True]
    assert lab.charges.open["a"].reclaimed


def test_a_price_that_moves_and_moves_takes_a_row_an_hour(lab: Lab) -> None:
    lab.clocks.wall = 1_700_000_000.0 // 3600 * 3600
    lab.add("a", Market.SPOT)
    lab.start("a")
    due = 0.0
    for number in range(900):
        lab.clocks.go(10)
        due += 10 * lab.share
        lab.share = 0.2 + number % 7 / 10
        lab.meter.repriced()
    found = lab.charged("a")
    assert len(found) == 3
    assert sum(seconds for seconds, _ in found) == pytest.approx(9000)
    assert sum(seconds * price for seconds, price in found) == pytest.approx(due)
    assert lab.meter.cost("a") == pytest.approx(due / 3600)
    assert ChargeStore(lab.database).open == lab.charges.open


def test_the_host_goes_down(lab: Lab) -> None:
    """A power cut: what ran is charged until it was last seen, not until the host is back."""
    lab.add("a")
    lab.start("a")
    lab.clocks.go(100)
    lab.meter.look()
    lab.clocks.go(20)
    lab.clocks = Clocks(EPOCH + 500_000, 5.0, "second")
    lab.open()
    row = lab.store.get("a")
    assert row
    assert lab.meter.seen(row) == EPOCH + 100
    lab.stop("a", lab.meter.seen(row))
    lab.meter.recover()
    assert lab.charged("a") == [(100, 1)]


def test_what_ran_before_there_was_a_meter_is_charged_from_now_on(lab: Lab) -> None:
    lab.store.witness = lambda old, new: None
    lab.add("a")
    lab.start("a")
    lab.clocks.go(100)
    lab.open()
    lab.meter.recover()
    lab.clocks.go(3)
    assert lab.charged("a") == [(3, 1)]


def test_a_start_does_not_pay_for_the_one_before(lab: Lab) -> None:
    lab.add("a")
    for _ in range(2):
        begin = lab.clocks.wall
        lab.start("a")
        lab.clocks.go(10)
        lab.stop("a")
    assert lab.meter.cost_of_starts("a", begin) == pytest.approx(60 / 3600)
    assert lab.meter.cost("a") == pytest.approx(120 / 3600)


def test_a_power_cut_right_after_the_price_moved(lab: Lab) -> None:
    """It ran when its price moved, after the meter's last look: dollars and seconds agree."""
    lab.add("a", Market.SPOT)
    lab.start("a")
    lab.clocks.go(30)
    lab.meter.look()
    lab.clocks.go(20)
    lab.share = 0.5
    lab.meter.repriced()
    lab.clocks = Clocks(lab.clocks.wall + 500, 5.0, "second")
    lab.open()
    row = lab.store.get("a")
    assert row
    lab.stop("a", lab.meter.seen(row))
    assert lab.charged("a") == [(50, 1)]


@settings(max_examples=300, deadline=None)
@given(
    spans=st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4)),
    looked=st.booleans(),
    set_by=st.one_of(st.just(0.0), st.floats(-1e5, 1e5)),
    rebooted=st.booleans(),
    priced=st.floats(0, 1),
)
def test_an_end_is_charged_for_what_it_ran_as_far_as_anybody_knows(
    spans: tuple[float, float, float], looked: bool, set_by: float, rebooted: bool, priced: float
) -> None:
    """Seen after one span, ended after the next, learnt of after the third; the wall clock was
    set in between."""
    before, after, late = spans
    seen = Reading(1000 + before, 100 + before, "x") if looked else None
    end = 1000 + before + after
    monotonic, boot = (3.0, "y") if rebooted else (100 + before + after + late, "x")
    charge = replace(a_charge(Reading(1000, 100, "x")), priced=priced * before)
    found = ended(charge, end, Reading(end + late + set_by, monotonic, boot), seen)
    assert found >= charge.priced - 1e-6
    if looked:
        assert found >= before - 1e-6
    if rebooted or not set_by:
        assert found == pytest.approx(before + after, abs=1e-3)
    else:
        assert found <= before + after + late + 1e-3


def a_charge(began: Reading) -> Charge:
    return Charge(1, 1, "a", "a", "i", Market.SPOT, 1.0, 1 << 30, 1.0, 1.0, began)


@pytest.mark.parametrize(
    ("end", "now", "seen", "expected"),
    [
        (1050.0, Reading(1060, 160, "x"), None, 50),
        (1050.0, Reading(9060, 160, "x"), None, 0),  # set forward since: nothing is known
        (1050.0, Reading(9060, 160, "x"), Reading(1040, 140, "x"), 40),  # but this is
        (1050.0, Reading(60, 160, "x"), Reading(1040, 140, "x"), 60),  # set back: all at most
        (1050.0, Reading(5000, 3, "y"), Reading(1040, 140, "x"), 50),
        (1040.0, Reading(5000, 3, "y"), Reading(1040, 140, "x"), 40),
        (1050.0, Reading(5000, 3, "y"), None, 50),
        (900.0, Reading(5000, 3, "y"), None, 0),
    ],
)
def test_an_end_that_is_learnt_of_later(
    end: float, now: Reading, seen: Reading | None, expected: float
) -> None:
    assert ended(a_charge(Reading(1000, 100, "x")), end, now, seen) == expected
