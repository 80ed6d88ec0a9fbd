"""When an instance counts as used, and when its rule acts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import idle
from sublet.domain.change import Change, changed
from sublet.domain.errors import HibernateNeedsVm, InvalidArgument
from sublet.domain.idle import Idle, Reading, Traffic
from sublet.domain.notice import Action
from sublet.domain.spec import InstanceSpec, Isolation, check_spec

SPEC = InstanceSpec(image="i", cpus=1, memory=1 << 29)
STILL = Reading(0.0, 10.0, Traffic(1000, 10), Traffic(1000, 10))


def after(seconds: float, cpu: float = 0.0, received: int = 0, sent: int = 0) -> Reading:
    """A reading so long after STILL, with so much use since: one frame each 100 bytes."""
    frames = idle.EMPTY_FRAME
    return Reading(
        seconds,
        10.0 + cpu,
        Traffic(1000 + received + received // 100 * frames, 10 + received // 100),
        Traffic(1000 + sent + sent // 100 * frames, 10 + sent // 100),
    )


def because(reading: Reading, cpus: float = 1.0, before: Reading = STILL) -> tuple[str, ...]:
    return idle.following(idle.begin(before), reading, idle.busy_cpu(cpus)).because


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        (after(60), ""),
        (after(60, cpu=2.9), ""),
        (after(60, cpu=3.1), "it uses 5% of a CPU"),
        (after(60, cpu=90), "it uses 150% of a CPU"),
        (after(60, received=3000), ""),
        (after(60, received=60000), "it receives 1000 B a second"),
        (after(60, sent=600000), "it sends 9.8 KiB a second"),
        (replace(after(60), cpu=None), "its CPU time cannot be read"),
        (replace(after(60), cpu=9.0), "its CPU time cannot be read"),
        (replace(after(60), sent=None), "its traffic cannot be read"),
        (replace(after(60), received=Traffic(0, 0)), "its traffic cannot be read"),
        (replace(after(60), time=0.0), "no time has passed since the last look"),
    ],
)
def test_what_counts_as_use(reading: Reading, says: str) -> None:
    assert because(reading) == ((says,) if says else ())


def test_frames_that_carry_nothing_are_no_use() -> None:
    """A thousand ARP messages of others, and a connection that is only kept alive."""
    noise = Traffic(1000 + 1000 * 42 + 100 * 66, 10 + 1100)
    assert because(replace(STILL, time=60.0, received=noise, sent=noise)) == ()


def test_a_small_instance_can_be_in_use() -> None:
    assert because(after(60, cpu=1.0), cpus=0.05) == ()
    assert because(after(60, cpu=1.6), cpus=0.05) == ("it uses 3% of a CPU",)


def test_an_emulated_guest_needs_more_for_less() -> None:
    assert idle.busy_cpu(2) == 0.05
    assert idle.busy_cpu(2, emulated=True) == 0.25
    assert idle.busy_cpu(0.1, emulated=True) == 0.05


@given(
    used=st.lists(st.booleans(), max_size=40),
    window=st.floats(1.0, 1e6),
)
def test_a_rule_acts_only_after_a_whole_unused_window(used: list[bool], window: float) -> None:
    rule = Idle(window)
    standing, now, cpu, last_use = idle.begin(STILL), 0.0, 10.0, 0.0
    for use in used:
        now += idle.pause(rule)
        cpu += idle.pause(rule) * (0.5 if use else 0.01)
        standing = idle.following(standing, replace(STILL, time=now, cpu=cpu), idle.CPU)
        last_use = now if use else last_use
        assert idle.due(rule, standing) == (not use and now - last_use >= window - 1e-5)
        assert idle.acts_at(rule, standing) == last_use + window


@given(
    others=st.lists(st.sampled_from(["", "somebody is attached: exec"]), min_size=7, max_size=20),
    unread=st.sampled_from(["cpu", "received", "sent", ""]),
)
def test_sessions_and_what_cannot_be_read_keep_it_up(others: list[str], unread: str) -> None:
    rule, standing = Idle(60.0), idle.begin(STILL)
    for number, other in enumerate(others, 1):
        reading = replace(STILL, time=number * 10.0, **({unread: None} if unread else {}))
        standing = idle.following(standing, reading, idle.CPU, [other] if other else [])
        if other or unread:
            assert not idle.due(rule, standing)
            assert standing.since == reading.time


def test_looks_are_few() -> None:
    assert idle.pause(Idle(60)) == 10
    assert idle.pause(Idle(1800)) == 300
    assert idle.pause(Idle(86400)) == 300


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (replace(SPEC, idle=Idle(0.5)), InvalidArgument),
        (replace(SPEC, idle=Idle(float("inf"))), InvalidArgument),
        (replace(SPEC, idle=Idle(60), network="host"), InvalidArgument),
        (replace(SPEC, idle=Idle(60, Action.HIBERNATE)), HibernateNeedsVm),
    ],
)
def test_what_is_refused(spec: InstanceSpec, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_spec(spec)


def test_what_is_not() -> None:
    check_spec(replace(SPEC, idle=Idle(1.0, Action.TERMINATE)))
    check_spec(replace(SPEC, idle=Idle(60, Action.HIBERNATE), isolation=Isolation.VM, disk=1 << 30))


def test_the_rule_is_changed() -> None:
    given = changed(SPEC, Change(idle_after=60.0))
    assert given.idle == Idle(60.0)
    assert changed(given, Change(idle_action=Action.TERMINATE)).idle == Idle(60, Action.TERMINATE)
    other = replace(SPEC, idle=Idle(60, Action.TERMINATE))
    assert changed(other, Change(idle_after=5.0)).idle == Idle(5.0, Action.TERMINATE)
    assert changed(other, Change(idle_after=0.0)).idle is None
    with pytest.raises(InvalidArgument, match="no rule"):
        changed(SPEC, Change(idle_action=Action.STOP))
    with pytest.raises(HibernateNeedsVm):
        changed(other, Change(idle_action=Action.HIBERNATE))
