"""Rules of an instance's life: what a new daemon makes of it, changes, waiting, expiry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.capacity import Amount
from sublet.domain.change import Change, admit_change, changed, expires, next_expiry
from sublet.domain.errors import InsufficientCapacity, InvalidArgument, NotHealthy, WrongState
from sublet.domain.health import Health
from sublet.domain.instance import Instance, State
from sublet.domain.names import validate_name, validate_new_name
from sublet.domain.ports import Port
from sublet.domain.recovery import Fate, fate
from sublet.domain.restart import RestartPolicy
from sublet.domain.spec import InstanceSpec
from sublet.domain.waiting import Condition, reached

GIB = 1 << 30
SPEC = InstanceSpec(image="i", cpus=1.0, memory=GIB)
ROW = Instance("0123456789ab", "box", "i", "d", SPEC, 1, State.RUNNING, 100.0, started=101.0)


@pytest.mark.parametrize(
    ("state", "fields", "alive", "expected"),
    [
        (State.RUNNING, {}, True, Fate.ADOPT),
        (State.PAUSED, {}, True, Fate.ADOPT),
        (State.STOPPING, {}, False, Fate.FINISH),
        (State.PENDING, {}, False, Fate.REMOVE),
        (State.PENDING, {"kept": True}, False, Fate.STOP),
        (State.SHUTTING_DOWN, {}, False, Fate.COMPLETE_REMOVAL),
        (State.STOPPED, {}, False, Fate.LEAVE),
    ],
)
def test_what_a_new_daemon_makes_of_it(
    state: State, fields: dict[str, bool], alive: bool, expected: Fate
) -> None:
    assert fate(replace(ROW, state=state, **fields), alive=alive) is expected  # type: ignore[arg-type]


def test_one_created_with_rm_stays_until_it_has_run() -> None:
    created = replace(ROW, state=State.STOPPED, spec=replace(SPEC, remove=True), started=0.0)
    assert fate(created, alive=False) is Fate.LEAVE
    assert fate(replace(created, started=1.0, finished=2.0), alive=False) is Fate.REMOVE


def test_a_change_leaves_what_it_does_not_name() -> None:
    made = changed(SPEC, Change(memory=2 * GIB, restart=RestartPolicy("always")))
    assert (made.cpus, made.memory, made.restart.name) == (1.0, 2 * GIB, "always")
    assert changed(replace(SPEC, ttl=60.0), Change(ttl=0.0)).ttl == 0
    assert changed(replace(SPEC, lease="abc"), Change(lease="")).lease == ""


def test_a_change_does_not_mind_networks_taken_off_since() -> None:
    published = replace(SPEC, ports=(Port(80, 8080),), network="none")
    assert changed(published, Change(pids_limit=9)).ports == published.ports


@pytest.mark.parametrize(
    "change", [Change(), Change(memory=0), Change(cpus=0), Change(ttl=-1.0), Change(lease="abc")]
)
def test_a_change_that_is_none_is_refused(change: Change) -> None:
    with pytest.raises(InvalidArgument):
        changed(SPEC, change)


def test_a_resize_needs_room_for_the_difference_only() -> None:
    larger = replace(SPEC, memory=3 * GIB)
    admit_change(SPEC, larger, Amount(0, 2 * GIB), 0)
    with pytest.raises(InsufficientCapacity):
        admit_change(SPEC, larger, Amount(0, 2 * GIB - 1), 0)


def test_memory_does_not_shrink_below_what_is_used() -> None:
    smaller = replace(SPEC, memory=GIB // 2)
    admit_change(SPEC, smaller, Amount(), GIB // 2)
    with pytest.raises(WrongState, match=r"uses 512\.0 MiB"):
        admit_change(SPEC, replace(SPEC, memory=GIB // 4), Amount(), GIB // 2)


@pytest.mark.parametrize(
    ("condition", "fields", "expected"),
    [
        (Condition.RUNNING, {}, True),
        (Condition.RUNNING, {"state": State.PENDING, "started": 0.0}, False),
        (Condition.HEALTHY, {"health": Health.NONE}, True),
        (Condition.HEALTHY, {"health": Health.STARTING}, False),
        (Condition.HEALTHY, {"health": Health.HEALTHY}, True),
        (Condition.STOPPED, {}, False),
        (Condition.STOPPED, {"state": State.STOPPED}, True),
        (Condition.RUNNING, {"state": State.STOPPED, "started": 0.0}, False),
        (Condition.REMOVED, {"state": State.STOPPED}, False),
    ],
)
def test_what_is_waited_for(
    condition: Condition, fields: dict[str, object], expected: bool
) -> None:
    assert reached(condition, replace(ROW, **fields)) is expected  # type: ignore[arg-type]


def test_what_cannot_come_any_more_is_not_waited_for() -> None:
    assert reached(Condition.REMOVED, None)
    assert reached(Condition.STOPPED, None)
    with pytest.raises(NotHealthy, match="deleted"):
        reached(Condition.HEALTHY, None)
    with pytest.raises(NotHealthy, match="box ended with 3 before it was healthy"):
        reached(Condition.HEALTHY, replace(ROW, state=State.STOPPED, exit_code=3))
    with pytest.raises(NotHealthy, match="unhealthy"):
        reached(Condition.HEALTHY, replace(ROW, health=Health.UNHEALTHY))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3), st.tuples(st.integers(0, 50), st.integers(0, 50))
    ),
    st.integers(0, 100),
)
def test_what_is_due_is_found_once_and_the_next_is_later(
    lives: dict[str, tuple[int, int]], now: int
) -> None:
    rows = [(name, float(created), float(ttl)) for name, (created, ttl) in lives.items()]
    due, following = next_expiry(rows, now)
    assert set(due) == {name for name, created, ttl in rows if ttl and created + ttl <= now}
    later = [created + ttl for name, created, ttl in rows if ttl and name not in due]
    assert following == min(later, default=0.0)


def test_an_instance_without_a_time_to_live_never_expires() -> None:
    assert expires(100.0, 0.0) == 0
    assert expires(100.0, 5.0) == 105


def test_a_name_in_the_shape_of_an_id_is_refused() -> None:
    assert validate_name("0123456789ab") == "0123456789ab"
    assert validate_new_name("0123456789a") == "0123456789a"
    with pytest.raises(InvalidArgument, match="shape of an id"):
        validate_new_name("0123456789ab")
