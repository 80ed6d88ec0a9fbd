"""The states of an instance, and what may be asked for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import LIVE, TRANSITIONS, State, check_transition
from sublet.domain.mounts import Mount
from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec, check_spec

states = st.sampled_from(State)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    "path",
    [
        "pending running paused running",
        "running stopping stopped pending",
        "running hibernating hibernated running",
        "running stopped shutting-down terminated",
        "pending shutting-down terminated",
    ],
)
def test_what_the_design_draws(path: str) -> None:
    steps = [State(name) for name in path.split()]
    for old, new in itertools.pairwise(steps):
        check_transition("db", old, new)


@given(states, states)
def test_all_else_is_refused(old: State, new: State) -> None:
    if new in TRANSITIONS[old]:
        check_transition("db", old, new)
        return
    with pytest.raises(WrongState) as caught:
        check_transition("db", old, new)
    assert "db" in caught.value.message


@given(states)
def test_every_instance_can_end(state: State) -> None:
    reached, frontier = {state}, {state}
    while frontier:
        frontier = {new for old in frontier for new in TRANSITIONS[old]} - reached
        reached |= frontier
    assert State.TERMINATED in reached


def test_the_end_is_the_end() -> None:
    assert not TRANSITIONS[State.TERMINATED]
    assert TRANSITIONS[State.SHUTTING_DOWN] == {State.TERMINATED}
    assert all(state not in TRANSITIONS[state] for state in State)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_what_has_a_process_can_lose_it(state: State) -> None:
    assert State.STOPPED in TRANSITIONS[state]


@pytest.mark.parametrize(
    "values",
    [
        {"cpus": math.nan},
        {"disk": -1},
        {"stop_timeout": math.nan},
        {"stop_timeout": -1.0},
        {"cold": True},
        {"ports": (Port(80, host_ip="0.0.0.0 } ; flush ruleset"),)},
        {"ports": (Port(80, protocol="icmp"),)},
        {"command": ("\ud800",)},
        {"env": ("A=\udcff",)},
        {"image": "\ud800"},
        {"mounts": (Mount("/a", "/b:ro"),)},
        {"mounts": (Mount("/a", "//proc"),)},
    ],
)
def test_values_that_only_the_api_can_give(values: dict[str, Any]) -> None:
    spec = InstanceSpec(**{"image": "x", "cpus": 1.0, "memory": 1 << 30, **values})
    with pytest.raises(InvalidArgument):
        check_spec(spec)
