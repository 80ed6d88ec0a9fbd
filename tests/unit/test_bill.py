"""The bill: what segments come to, however it is divided."""

from __future__ import annotations

import time
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import reference_prices
from sublet.domain.bill import Line, bill, spans, total
from sublet.domain.errors import InvalidArgument
from sublet.domain.meter import Charge, Reading
from sublet.domain.moments import moment, zone
from sublet.domain.size import Size
from sublet.domain.spec import Market
from sublet.domain.what_if import what_if

EPOCH = 1_700_000_000.0
NOW = Reading(EPOCH + 1e6, 1e6, "x")


def a_charge(
    number: int = 1,
    start: float = 0.0,
    seconds: float | None = 3600.0,
    *,
    run: int = 0,
    instance: str = "a",
    price: float = 1.0,
    market: Market = Market.ON_DEMAND,
    reclaimed: bool = False,
    **labels: str,
) -> Charge:
    began = Reading(EPOCH + start, start, "x")
    name = instance.upper()
    return Charge(
        *(number, run or number, instance, name, "i", market, 2.0, 4 << 30, price, 1.0, began),
        *(seconds, reclaimed, labels),
    )


def amounts(*charges: Charge, here: bool = False) -> Line:
    found = bill(spans(charges, NOW, {"a"} if here else set()), "instance")
    return total(found)


def test_a_start_is_charged_a_minute_at_least_not_each_segment() -> None:
    short = amounts(a_charge(seconds=1.0))
    assert (short.used, short.seconds, short.amount) == (1.0, 60.0, pytest.approx(60 / 3600))
    in_parts = amounts(
        a_charge(1, 0.0, 10.0), a_charge(2, 10.0, 20.0, run=1, price=0.5), a_charge(3, 500.0, 3.0)
    )
    assert in_parts.seconds == 120.0
    assert in_parts.amount == pytest.approx((10 + 50 * 0.5 + 60) / 3600)
    assert in_parts.starts == 2
    assert amounts(a_charge(1, 0.0, 40.0), a_charge(2, 40.0, 40.0, run=1)).seconds == 80.0


def test_what_goes_on_counts_up_to_now() -> None:
    assert amounts(a_charge(start=1e6 - 100, seconds=None)).seconds == 100.0


@pytest.mark.parametrize(
    ("market", "seconds", "reclaimed", "free"),
    [
        (Market.SPOT, 3599.0, True, True),
        (Market.SPOT, 3600.0, True, False),
        (Market.SPOT, 10.0, False, False),
        (Market.ON_DEMAND, 10.0, True, False),
    ],
)
def test_spot_that_is_reclaimed_in_its_first_hour_is_free(
    market: Market, seconds: float, reclaimed: bool, free: bool
) -> None:
    charge = a_charge(seconds=seconds, market=market, price=0.3, reclaimed=reclaimed)
    found = amounts(charge)
    assert (found.amount == 0.0) == free
    assert found.on_demand_amount == pytest.approx(max(60.0, seconds) / 3600)
    before = a_charge(1, seconds=3000.0, run=1, market=Market.SPOT)
    after = a_charge(2, 3000.0, 1000.0, run=1, market=Market.SPOT, reclaimed=True)
    assert amounts(before, after).amount > 0, "its first hour is that of its start"


def test_around_the_clock_ends_with_a_deleted_instance() -> None:
    used = (a_charge(1, 0.0, 3600.0), a_charge(2, 36000.0, 3600.0))
    assert amounts(*used).around_the_clock_amount == pytest.approx(11)
    assert amounts(*used, here=True).around_the_clock_amount == pytest.approx(1e6 / 3600)
    assert amounts(*used).on_demand_amount == pytest.approx(2)


def test_by_market_and_label() -> None:
    found = spans(
        [
            a_charge(1, team="x"),
            a_charge(2, instance="b", market=Market.SPOT, price=0.25, team="y"),
            a_charge(3, instance="c", team="x"),
            a_charge(4, instance="d"),
        ],
        NOW,
        set(),
    )
    assert {(line.market, line.amount) for line in bill(found, "market")} == {
        ("on-demand", 3.0),
        ("spot", 0.25),
    }
    assert [(line.label, line.amount) for line in bill(found, "label=team")] == [
        ("x", 2.0),
        ("y", 0.25),
        ("", 1.0),
    ]
    assert [line.name for line in bill(found, "instance")] == ["A", "B", "C", "D"]
    for wrong in ("colour", "label", "label="):
        with pytest.raises(InvalidArgument, match=wrong):
            bill(found, wrong)


def test_days_are_those_of_a_zone() -> None:
    begin = moment("2026-10-24T22:00:00Z", 0)
    found = spans([a_charge(start=begin - EPOCH, seconds=49 * 3600.0)], NOW, set())
    berlin = bill(found, "day", zone=ZoneInfo("Europe/Berlin"))
    assert [(line.day, line.seconds / 3600) for line in berlin] == [
        ("2026-10-25", 25),  # the day on which summer time ends
        ("2026-10-26", 24),
    ]
    utc = bill(found, "day", zone=UTC)
    assert [line.seconds / 3600 for line in utc] == [2, 24, 23]
    assert [line.starts for line in utc] == [1, 0, 0]


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(0, 2e5), st.floats(0, 5), st.booleans()), max_size=8
    ),
    st.floats(-1e5, 4e5),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]),
)
def test_however_it_is_divided_it_sums_up(
    uses: list[tuple[float, float, float, bool]], cut: float, place: str
) -> None:
    start, charges = 0.0, []
    for number, (gap, seconds, price, follows) in enumerate(uses, 1):
        run = charges[-1].run if follows and charges else number
        start += 0.0 if follows else gap + 60.0
        charges.append(a_charge(number, start, seconds, run=run, price=price))
        start += seconds
    found = spans(charges, NOW, {"a"})
    whole = total(bill(found, "instance"))
    moment_of_cut = EPOCH + cut
    parts = [
        total(bill(found, "day", zone=zone(place))),
        total([*bill(found, "market", until=moment_of_cut), *bill(found, "day", moment_of_cut)]),
    ]
    for part in parts:
        assert part.seconds == pytest.approx(whole.seconds, abs=1e-3)
        assert part.used == pytest.approx(whole.used, abs=1e-3)
        assert part.amount == pytest.approx(whole.amount, abs=1e-6)
        assert part.around_the_clock_amount == pytest.approx(
            whole.around_the_clock_amount, abs=1e-6
        )
    assert whole.on_demand_amount <= whole.around_the_clock_amount + 1e-6


def test_a_hundred_thousand_segments_in_a_second_or_so() -> None:
    charges = [a_charge(n, n * 10.0, 9.0, instance=f"i{n % 1000}") for n in range(100_000)]
    begun = time.process_time()
    assert len(bill(spans(charges, NOW, set()), "instance")) == 1000
    assert time.process_time() - begun < 5.0


def test_what_if() -> None:
    rows = what_if(0.1008, 0.02016, 8, 22, wants_spot=True)
    assert [(row.scenario, row.hours, row.chosen) for row in rows] == [
        ("around the clock on demand", 730.0, False),
        ("only when used", 176, False),
        ("spot around the clock", 730.0, False),
        ("spot only when used", 176, True),
    ]
    assert [round(row.amount or 0, 2) for row in rows] == [73.58, 17.74, 14.72, 3.55]
    assert [round(row.saving or 0, 2) for row in rows] == [0, 55.84, 58.87, 70.04]
    assert what_if(1.0, None, 24, 31)[2:][0].amount is None
    assert what_if(1.0, None, 24, 31)[1].hours == 730.0
    for hours, days in ((25, 1), (0, 1), (1, 32), (-1, 3)):
        with pytest.raises(InvalidArgument, match="has no"):
            what_if(1.0, 1.0, hours, days)


def test_reference_prices() -> None:
    table = reference_prices.parse(reference_prices.EC2, "EC2")
    assert (table.date, len(table.offers)) == ("2026-11-23", 6)
    held = {text: table.smallest(Size.parse(text)) for text in ("0.5x0.5", "2x8", "3x4", "900x1")}
    assert {text: offer and offer.type for text, offer in held.items()} == {
        "0.5x0.5": "t3.micro",
        "2x8": "t3.large",
        "3x4": "m7i.8xlarge",
        "900x1": None,
    }
    assert table.offers[0].spot == pytest.approx(0.00405)
    assert table.offers[-1].spot is None
    known = bill(spans([a_charge()], NOW, set()), "instance", reference=table.hourly)
    assert known[0].ec2_amount == pytest.approx(0.0416)
    assert total(bill(spans([a_charge()], NOW, set()), "instance")).ec2_amount is None


HEADER = ",".join(reference_prices.HEADER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no price"),
        (f"{HEADER}\n", "no price"),
        ("type,cpu\n", "line 1: the header"),
        (f"{HEADER}\na,1,1\n", "line 2: it has 3 fields"),
        (f"# x\n{HEADER}\na,1,1,much,,\n", "line 3: a field is not a number"),
        (f"{HEADER}\na,1,1,-1,,\n", "below 0"),
        (f"{HEADER}\na,1,1,nan,,\n", "below 0"),
        (f"{HEADER}\na,1,,1,,\n", "have to be there"),
    ],
)
def test_a_malformed_price_file_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        reference_prices.parse(text, "mine.csv")
    assert "mine.csv" in caught.value.message
    assert said in caught.value.message


def test_zones() -> None:
    assert moment("2026-11-01", 0, zone("Europe/Berlin")) == moment("2026-10-31T23:00:00Z", 0)
    for wrong in ("Mars/Base", "../etc/passwd", "", "Europe"):
        with pytest.raises(InvalidArgument, match="time zone"):
            zone(wrong)
