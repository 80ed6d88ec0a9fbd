"""When an instance is backed up by itself, and when what is not done is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.backup_plan import (
    LAST_SECONDS,
    BackupPlan,
    check_plan,
    cut,
    due,
    parse_plan,
)
from sublet.domain.change import Change, changed
from sublet.domain.errors import InvalidArgument
from sublet.domain.retention import Keep
from sublet.domain.spec import InstanceSpec

MOMENTS = st.floats(0, 4e9)


def test_texts() -> None:
    plan = parse_plan(["on-notice,on-stop", "every=6h"], "last=3,daily=7")
    assert plan == BackupPlan(True, True, 21600.0, Keep(last=3, daily=7))
    assert parse_plan(["on-stop"]) == BackupPlan(on_stop=True)


@pytest.mark.parametrize("text", ["", "never", "every", "every=", "every=5s", "on-notice,", "on-x"])
def test_refusals(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_plan([text])


def test_what_contradicts_itself() -> None:
    with pytest.raises(InvalidArgument):
        check_plan(BackupPlan())
    with pytest.raises(InvalidArgument, match="--rm"):
        check_plan(BackupPlan(on_stop=True), remove=True)
    check_plan(BackupPlan(on_notice=True), remove=True)
    with pytest.raises(InvalidArgument):
        check_plan(BackupPlan(on_stop=True, keep=Keep(last=-1)))


@given(st.floats(60, 1e7), MOMENTS, MOMENTS)
def test_the_next_one(every: float, since: float, now: float) -> None:
    plan = BackupPlan(every=every)
    wait = due(plan, since, now)
    assert 0 <= wait <= every  # whatever somebody sets the clock to
    if since <= now < since + every:
        assert now + wait == pytest.approx(since + every)
    if now >= since + every:
        assert wait == 0


@given(MOMENTS, st.floats(0, 1e4))
def test_the_end_of_a_notice(given_at: float, seconds: float) -> None:
    end = cut(given_at, given_at + seconds)
    assert given_at - 1e-3 <= end <= given_at + seconds
    assert given_at + seconds - end <= LAST_SECONDS
    if seconds >= 40:
        assert given_at + seconds - end == pytest.approx(LAST_SECONDS, abs=1e-3)


def test_a_plan_may_change() -> None:
    plan = BackupPlan(on_stop=True)
    spec = changed(InstanceSpec("small", cpus=1, memory=1 << 29), Change(backup=plan))
    assert spec.backup == plan
    assert changed(spec, Change(ttl=5.0)).backup == plan
    assert changed(spec, Change(backup=BackupPlan())).backup is None
    with pytest.raises(InvalidArgument):
        changed(spec, Change(backup=BackupPlan(every=1.0)))
