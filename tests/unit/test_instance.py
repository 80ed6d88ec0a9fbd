"""The states of an instance."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import WrongState
from sublet.domain.instance import LIVE, TRANSITIONS, State, check_transition

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
