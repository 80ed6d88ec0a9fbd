"""Warm pools: what matches, how many are made, and that nobody gets what another one has."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sublet.domain import pools
from sublet.domain.capacity import Amount, fits
from sublet.domain.errors import InvalidArgument, NameInUse
from sublet.domain.instance import Instance, State
from sublet.domain.meter import Reading
from sublet.domain.pools import LABEL, Pool, given_up, handed_out, key, name_for, rest, work
from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec, Isolation
from sublet.drivers.store.charges import ChargeStore
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.pools import PoolStore
from sublet.engine.meter import Meter
from sublet.engine.pools import Pools
from sublet.engine.spares import Spares

SPEC = InstanceSpec(
    "i", ("infinity",), entrypoint=("sleep",), cpus=1.0, memory=1 << 29, labels={LABEL: "p"}
)
POOL = Pool("0" * 12, "p", 3, SPEC, 0.0)


def row(number: int, state: State = State.RUNNING, **values: Any) -> Instance:
    given = {"pool": POOL.id, **values}
    return Instance(f"{number:012x}", f"n{number}", "i", "d", SPEC, number, state, 1.0, **given)


def test_a_request_differs_in_what_a_running_one_can_be_given() -> None:
    same = replace(
        SPEC, image="other", name="x", labels={"a": "b"}, ttl=9.0, lease="l", env=("A=",)
    )
    assert key(same) == key(SPEC)
    for other in (
        replace(SPEC, cpus=2.0),
        replace(SPEC, isolation=Isolation.VM),
        replace(SPEC, egress=("none",)),
        replace(SPEC, ports=(Port(80, 80),)),
        replace(SPEC, command=("1",)),
        replace(SPEC, network="n"),
        replace(SPEC, hostname="h"),
    ):
        assert key(other) != key(SPEC)


def test_what_is_handed_out_is_as_if_made_now() -> None:
    asked = replace(SPEC, name="mine", labels={"a": "b"}, ttl=60.0, lease="l", env=("A=b",))
    found = handed_out(row(1), asked, 77.0)
    assert (found.name, found.created, found.started, found.pool) == ("mine", 77.0, 77.0, "")
    assert found.spec == asked
    assert handed_out(row(1), replace(asked, name=""), 77.0).name == "n1"


def test_what_there_is_to_do() -> None:
    ready = [row(1), row(2)]
    assert work(POOL, "d", ready, 0) == pools.Work(1)
    assert work(POOL, "d", ready, 1) == pools.Work(0)
    assert work(POOL, "d", [*ready, row(3, State.PENDING)], 1) == pools.Work(0)
    dead = row(3, State.STOPPED)
    assert work(POOL, "d", [*ready, dead], 0) == pools.Work(1, (dead.id,))
    assert work(POOL, "new", ready, 0) == pools.Work(3, (ready[0].id, ready[1].id))
    assert work(POOL, "", ready, 0) == pools.Work(0, (ready[0].id, ready[1].id))
    assert work(replace(POOL, size=1), "d", ready, 0) == pools.Work(0, (ready[1].id,))


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), max_size=8),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_as_many_go_as_it_takes(held: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    rows = {str(number): Amount(*each) for number, each in enumerate(held)}
    found = given_up(rows, Amount(*asked))
    freed = Amount()
    for number, instance_id in enumerate(found):
        assert not fits(Amount(*asked), freed), f"{found[number:]} go for nothing"
        freed += rows[instance_id]
    if not fits(Amount(*asked), freed):
        assert all(  # what stays is no help
            (not asked[0] or freed.cpus >= asked[0]) and (not asked[1] or freed.memory >= asked[1])
            for instance_id in rows
            if instance_id not in found
        )


def test_pauses_double_up_to_a_minute() -> None:
    found, pauses = None, []
    for _ in range(9):
        found = rest(found, "why", 100.0)
        pauses.append(found.until - 100.0)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("size", "change"),
    [
        (-1, {}),
        (pools.MAXIMUM + 1, {}),
        (1, {"name": "x"}),
        (1, {"ports": (Port(80, 80),)}),
        (1, {"ttl": 5.0}),
        (1, {"lease": "l"}),
        (1, {"env": ("A=b",)}),
    ],
)
def test_what_is_no_pool(size: int, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        pools.check_pool("p", size, replace(SPEC, **change))


def test_names() -> None:
    assert name_for("debian:bookworm", vm=False, taken=()) == "debian-bookworm"
    assert name_for("localhost:5000/a/B_c:1@sha256:x", vm=True, taken=()) == "b-c-1-vm"
    assert name_for("debian", vm=False, taken={"debian", "debian-2"}) == "debian-3"


class Lab:
    """A daemon's pools on a database that outlives it. What runs, runs in its rows alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self.digest = "d"
        self.dead: set[str] = set()
        self.up()

    def up(self) -> None:
        """As a daemon that comes up again."""
        database = Database(self.path)
        self.rows = InstanceStore(database)
        self.charges = ChargeStore(database)
        Meter(self.rows, self.charges, lambda _: 1.0, lambda _: 1.0, lambda: Reading(5.0, 5.0, "b"))
        tasks = SimpleNamespace(start=lambda name, work: work.close())
        parts = SimpleNamespace(
            store=self.rows, tasks=tasks, events=SimpleNamespace(publish=lambda *_, **__: None)
        )
        lifecycle = SimpleNamespace(
            parts=parts,
            permit=lambda *_: None,
            tell=lambda *_, **__: None,
            alive=lambda found: found.id not in self.dead,
            locks=SimpleNamespace(action=lambda _: ""),
        )
        market = SimpleNamespace(spares=Spares(self.rows), check=lambda _: None)
        instances = SimpleNamespace(
            lifecycle=lifecycle,
            parts=parts,
            market=market,
            images=SimpleNamespace(local=lambda _: SimpleNamespace(digest=self.digest)),
            complete=lambda spec: spec,
            leased=lambda _: None,
        )
        self.spares = market.spares
        self.pools = Pools(cast(Any, instances), PoolStore(database))

    def make(self, digest: str = "d") -> str:
        self.number += 1
        made = replace(row(self.number), digest=digest)
        self.rows.add(made)
        return made.id


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    found = Lab(tmp_path / "db")
    found.pools.store.put(POOL)
    return found


def test_the_pool_pays_until_it_is_handed_out(lab: Lab) -> None:
    made = lab.make()
    taken = lab.pools.take(replace(SPEC, name="mine", labels={"a": "b"}))
    assert taken
    (own,) = lab.charges.of(made)
    assert (own.name, own.labels, own.seconds) == ("mine", {"a": "b"}, None)
    (before,) = lab.charges.of(POOL.id)
    assert (before.name, before.labels, before.seconds) == ("p", {LABEL: "p"}, 0.0)


def test_a_name_that_is_taken_takes_nothing(lab: Lab) -> None:
    lab.make()
    lab.make()
    assert lab.pools.take(replace(SPEC, name="mine"))
    with pytest.raises(NameInUse):
        lab.pools.take(replace(SPEC, name="mine"))
    assert lab.pools.ready(POOL) == 1
    lab.up()
    assert lab.pools.ready(POOL) == 1


class Hands(RuleBasedStateMachine):
    """Sandboxes that come and go while others ask for them, and daemons that are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.lab = Lab(self.home / "db")
        self.lab.pools.store.put(POOL)
        self.owned: set[str] = set()

    @rule()
    def one_is_ready(self) -> None:
        self.lab.make()

    @rule()
    def one_of_an_older_image(self) -> None:
        self.lab.make("older")

    @rule(spec=st.sampled_from([SPEC, replace(SPEC, cpus=2.0)]))
    def somebody_asks(self, spec: InstanceSpec) -> None:
        before = {found.id: found for found in self.lab.spares.ready()}
        taken = self.lab.pools.take(spec)
        if taken is None:
            good = [r for r in before.values() if r.id not in self.lab.dead and r.digest == "d"]
            assert not good or spec is not SPEC
            return
        assert taken.id in before
        assert taken.id not in self.owned
        assert taken.digest == "d"
        self.owned.add(taken.id)

    @rule()
    def one_dies(self) -> None:
        if ready := self.lab.spares.ready():
            self.lab.dead.add(ready[0].id)

    @rule()
    def room_is_needed(self) -> None:
        before = {found.id for found in self.lab.spares.ready()}
        self.lab.spares.give(Amount(1.0, 1))
        assert len(before - {found.id for found in self.lab.spares.ready()}) == min(1, len(before))

    @rule()
    def the_daemon_is_killed(self) -> None:
        self.lab.up()

    @invariant()
    def what_is_owned_is_no_pool_s(self) -> None:
        assert not self.owned & {found.id for found in self.lab.rows.pooled()}
        assert not self.owned & self.lab.spares.going

    def teardown(self) -> None:
        shutil.rmtree(self.home)


def test_nobody_gets_what_another_one_has() -> None:
    run_state_machine_as_test(Hands, settings=settings(max_examples=30, deadline=None))  # type: ignore[no-untyped-call]
