"""Which backups stay: as restic's own policy has it, whatever the times are."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import InvalidArgument
from sublet.domain.retention import Keep, kept, parse_keep

DAY = 86400.0
TIMES = st.lists(st.floats(0, 4e9, allow_nan=False), max_size=60)
KEEPS = st.builds(Keep, *[st.integers(0, 8)] * 3)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_last_of_each_period() -> None:
    texts = ["2026-01-01T01:00", "2026-01-01T23:00", "2026-01-02T05:00", "2026-01-12T05:00"]
    times = [moment(text) for text in texts]
    assert kept(times, Keep(last=1)) == {3}
    assert kept(times, Keep(daily=3)) == {1, 2, 3}
    assert kept(times, Keep(weekly=2)) == {2, 3}
    assert kept(times, Keep(last=2, weekly=1)) == {2, 3}
    assert kept(times, Keep()) == {0, 1, 2, 3}


@given(TIMES, KEEPS)
def test_rules(times: list[float], keep: Keep) -> None:
    found = kept(times, keep)
    assert found <= set(range(len(times)))
    if keep.everything:
        assert len(found) == len(times)
        return
    assert len(found) <= keep.last + keep.daily + keep.weekly
    if times:
        assert max(range(len(times)), key=lambda i: (times[i], i)) in found
    days = {datetime.fromtimestamp(time, UTC).date() for time in times}
    shown = {datetime.fromtimestamp(times[index], UTC).date() for index in found}
    assert len(shown & days) >= min(keep.daily, len(days))
    assert len(found) >= min(keep.last, len(times))


@given(TIMES, KEEPS)
def test_more_rules_keep_more(times: list[float], keep: Keep) -> None:
    if not keep.everything:
        more = Keep(keep.last + 1, keep.daily + 1, keep.weekly + 1)
        assert kept(times, keep) <= kept(times, more)


@given(TIMES, KEEPS)
def test_again_it_removes_nothing(times: list[float], keep: Keep) -> None:
    left = [times[index] for index in sorted(kept(times, keep))]
    assert kept(left, keep) == set(range(len(left)))


@pytest.mark.parametrize("text", ["", "last", "last=0", "last=x", "monthly=1", "last=1,last=2"])
def test_refusals(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_keep(text)


def test_texts() -> None:
    assert parse_keep("last=24, daily=7,weekly=4") == Keep(24, 7, 4)
