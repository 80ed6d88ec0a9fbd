"""The market's rules: the price, the ledger, the victims, sizes, requests."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.capacity import Amount, fits, holds, sold
from sublet.domain.config import Config, load
from sublet.domain.errors import HibernateNeedsVm, InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.ledger import Ledger
from sublet.domain.market import (
    SEARCHED,
    Candidate,
    covers,
    moved,
    shortage,
    target,
    usage,
    victims,
)
from sublet.domain.notice import Action, Reason
from sublet.domain.size import Size
from sublet.domain.size_names import STANDARD, parse_size_names, resolve, size_names
from sublet.domain.spec import InstanceSpec, Market, check_spec
from sublet.domain.spot import (
    STATES,
    Request,
    RequestState,
    Spot,
    Status,
    Type,
    check_spot,
    due,
    marked,
    taken,
)

SHARES = st.floats(0, 1)
AMOUNTS = st.builds(Amount, st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.sampled_from([1, 2, 4, 8]))


@st.composite
def candidates(draw: st.DrawFn, most: int = 8) -> list[Candidate]:
    amounts = draw(st.lists(AMOUNTS, max_size=most))
    return [
        Candidate(
            f"i-{number}", amount, round(amount.cpus * 0.0304 + amount.memory * 0.005, 6),
            draw(st.integers(0, 3)),
        )
        for number, amount in enumerate(amounts)
    ]  # fmt: skip


NEEDS = st.builds(Amount, st.sampled_from([0.0, 0.5, 3.0, 9.0]), st.sampled_from([0, 1, 7, 20]))


def cost(found: list[Candidate]) -> float:
    return round(sum(candidate.price for candidate in found), 9)


@given(candidates(), NEEDS)
def test_victims_are_enough_and_the_cheapest(rows: list[Candidate], need: Amount) -> None:
    found = victims(rows, need)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(rows, count) for count in range(len(rows) + 1)
    )
    costs = [cost(list(chosen)) for chosen in subsets if covers(chosen, need)]
    if found is None:
        assert costs == []
        return
    chosen = [row for row in rows if row.id in found]
    assert len(chosen) == len(found)
    assert covers(chosen, need)
    assert cost(chosen) == min(costs)


@given(candidates(most=SEARCHED + 20), NEEDS, st.randoms(use_true_random=False))
def test_no_victim_is_superfluous_and_the_order_does_not_matter(
    rows: list[Candidate], need: Amount, random: object
) -> None:
    found = victims(rows, need)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert victims(shuffled, need) == found
    chosen = [row for row in rows if row.id in (found or ())]
    for row in chosen:
        assert not covers([other for other in chosen if other is not row], need)


def test_of_equals_the_younger_goes() -> None:
    rows = [Candidate(name, Amount(1, 1), 1.0, started) for name, started in (("a", 1), ("b", 2))]
    assert victims(rows, Amount(1, 0)) == ("b",)
    assert victims(rows, Amount(0, 0)) == ()
    assert victims(rows, Amount(3, 0)) is None


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_what_comes_back_already_counts(asked: Amount, free: Amount, coming: Amount) -> None:
    missing = shortage(asked, free, coming)
    assert missing.cpus >= 0
    assert missing.memory >= 0
    assert fits(Size(asked.cpus, asked.memory << 30), _grown(free + coming + missing))
    if fits(Size(asked.cpus, asked.memory << 30), _grown(free + coming)):
        assert missing == Amount()


def _grown(amount: Amount) -> Amount:
    return Amount(amount.cpus, amount.memory << 30)


@given(SHARES, SHARES)
def test_the_price_follows_what_on_demand_uses(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0.2 <= target(low) <= target(high) <= 1
    assert (target(0), target(1)) == (0.2, 1.0)


@given(st.floats(0.2, 1), st.floats(0.2, 1), st.floats(0, 1000), st.floats(0, 1000))
def test_the_price_moves_smoothly(start: float, to: float, first: float, then: float) -> None:
    once = moved(start, to, first + then, 300)
    twice = moved(moved(start, to, first, 300), to, then, 300)
    assert once == pytest.approx(twice, abs=0.0011), "however often it is looked at"
    assert min(start, to) - 1e-9 <= once <= max(start, to) + 1e-9, "never beyond"
    assert abs(moved(start, to, 0, 300) - start) <= 0.001, "no jumps"
    assert moved(start, to, first, 0) == to


def test_the_scarcer_resource_makes_the_price() -> None:
    assert usage(Amount(1, 8), Amount(10, 10)) == 0.8
    assert usage(Amount(9, 1), Amount(10, 10)) == 0.9
    assert usage(Amount(), Amount(10, 0)) == 1.0
    assert usage(Amount(20, 1), Amount(10, 10)) == 1.0


SPECS = st.builds(
    lambda cpus, memory, spot: InstanceSpec(
        "i", cpus=cpus, memory=memory << 20, market=Market.SPOT if spot else Market.ON_DEMAND
    ),
    st.floats(0.01, 4),
    st.integers(6, 64),
    st.booleans(),
)


@given(
    st.lists(st.tuples(st.integers(0, 3), SPECS, st.sampled_from([*State, None]), st.booleans()))
)
def test_the_ledger_knows_what_counting_finds(
    changes: list[tuple[int, InstanceSpec, State | None, bool]],
) -> None:
    rows: dict[int, Instance] = {}
    ledger = Ledger()
    for number, spec, state, waits in changes:
        old = rows.pop(number, None)
        if state is not None:
            pool = "p" if waits and spec.market is Market.ON_DEMAND else ""
            row = Instance(str(number), "n", "i", "d", spec, number, state, 0.0, pool=pool)
            rows[number] = replace(row, wanted=spec.memory % (2 << 20) > 0)
        ledger.change(old, rows.get(number))
    for market in Market:
        counted, known = sold(rows.values(), market), ledger.sold(market)
        assert known.cpus == pytest.approx(counted.cpus, abs=1e-5)
        assert known.memory == counted.memory
    rows_held = [row for row in rows.values() if holds(row)]
    assert ledger.held.memory == sum(row.spec.memory for row in rows_held)
    claimed = sold((row for row in rows.values() if not row.pool), Market.ON_DEMAND)
    assert ledger.demand.cpus == pytest.approx(claimed.cpus, abs=1e-5)
    assert ledger.demand.memory == claimed.memory


def test_sizes_have_names() -> None:
    own = parse_size_names("tiny=0.5x0.25, large=2x6")
    assert resolve("tiny", own) == Size.parse("0.5x0.25")
    assert resolve("large", own) == Size.parse("2x6"), "the owner's goes before"
    assert resolve("large", ()) == resolve("2x8", ()) == Size.parse(STANDARD["large"])
    assert next(iter(size_names(own))) == "tiny"
    assert load({"sizes": {"dev": "2x4"}}, {}).size_of("dev") == Size.parse("2x4")
    assert Config().size_of("") == Config().default_size
    for wrong in ("tiny", "2x4=1x1", "a/b=1x1", "x=big"):
        with pytest.raises(InvalidArgument):
            parse_size_names(wrong)
    with pytest.raises(InvalidArgument, match="no size 'huge'"):
        resolve("huge", ())


def test_the_pressure_that_is_watched() -> None:
    assert load({"pressure": 30}, {}).pressure == (("memory", 30.0),)
    assert load({}, {"SUBLET_PRESSURE": "cpu=95, memory=0"}).pressure == (("cpu", 95.0),)
    assert load({"pressure": 0}, {}).pressure == ()
    for wrong in ("disk=3", "101", "-1", "much"):
        with pytest.raises(InvalidArgument):
            load({"pressure": wrong}, {})


@pytest.mark.parametrize(
    ("spot", "vm", "remove", "error"),
    [
        (Spot(), False, True, None),
        (Spot(0.01, Action.STOP, True, "SIGUSR1", ("true",)), False, False, None),
        (Spot(on_reclaim=Action.HIBERNATE), True, False, None),
        (Spot(on_reclaim=Action.HIBERNATE), False, False, HibernateNeedsVm),
        (Spot(persistent=True), False, False, InvalidArgument),
        (Spot(on_reclaim=Action.STOP), False, True, InvalidArgument),
        (Spot(0.0), False, False, InvalidArgument),
        (Spot(float("nan")), False, False, InvalidArgument),
        (Spot(notice_signal="SIGNOPE"), False, False, InvalidArgument),
        (Spot(notice_exec=("a\0",)), False, False, InvalidArgument),
    ],
)
def test_what_can_be_asked_of_spot(
    spot: Spot, vm: bool, remove: bool, error: type[Exception] | None
) -> None:
    if error is None:
        check_spot(spot, vm=vm, remove=remove)
    else:
        with pytest.raises(error):
            check_spot(spot, vm=vm, remove=remove)


def test_a_request_and_its_market_agree() -> None:
    plain = InstanceSpec("i").with_defaults(Size(1, 1 << 30))
    assert (plain.market, plain.spot) == (Market.ON_DEMAND, None)
    for asked in (InstanceSpec("i", spot=Spot()), InstanceSpec("i", market=Market.SPOT)):
        made = asked.with_defaults(Size(1, 1 << 30))
        assert (made.market, made.spot) == (Market.SPOT, Spot())
        check_spec(made)


def test_every_status_has_its_state() -> None:
    assert set(STATES) == set(Status)
    assert STATES[marked(Action.STOP)] is STATES[marked(Action.TERMINATE)] is RequestState.ACTIVE
    for reason in Reason:
        assert STATES[taken(Action.TERMINATE, reason)] is RequestState.CLOSED
        assert STATES[taken(Action.STOP, reason)] is RequestState.DISABLED
        assert taken(Action.STOP, reason) is taken(Action.HIBERNATE, reason)
    assert taken(Action.STOP, Reason.PRICE) is Status.STOPPED_BY_PRICE
    assert taken(Action.TERMINATE, Reason.PRICE) is Status.TERMINATED_BY_PRICE


def test_a_request_comes_back_when_it_has_rested_and_the_price_allows() -> None:
    row = Request(
        "sir-1", "i", "n", Type.PERSISTENT, Status.STOPPED_BY_PRICE, 1.0, 0.0, 100.0, wanted=True
    )
    assert due(row, price=0.9, now=160.0, rest=60.0)
    assert not due(row, price=0.9, now=159.0, rest=60.0)
    assert not due(row, price=0.96, now=160.0, rest=60.0), "a little below its maximum"
    by_capacity = replace(row, status=Status.STOPPED_NO_CAPACITY)
    assert due(by_capacity, price=1.0, now=160.0, rest=60.0)
    assert not due(by_capacity, price=1.01, now=160.0, rest=60.0)
    assert not due(replace(row, wanted=False), price=0.1, now=160.0, rest=60.0)
    assert not due(replace(row, status=Status.FULFILLED), price=0.1, now=160.0, rest=60.0)
    waiting = replace(row, status=Status.CAPACITY_NOT_AVAILABLE)
    assert due(waiting, price=1.0, now=100.0, rest=60.0), "what never ran need not rest"
