"""Subnets, addresses and regions of user ids: no two of anything overlap."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import subnets
from sublet.domain.errors import InvalidArgument
from sublet.domain.slots import COUNT

slots = st.integers(1, COUNT)
pool = st.sampled_from(subnets.POOL[: subnets.REGIONS])


@given(pool, slots, pool, slots)
def test_no_two_slots_share_ids_or_addresses(
    one: IPv4Network, i: int, two: IPv4Network, j: int
) -> None:
    if (one, i) == (two, j):
        return
    assert (
        abs(subnets.uid_base(subnets.region(one), i) - subnets.uid_base(subnets.region(two), j))
        >= subnets.IDS
    )
    assert subnets.address(one, i) != subnets.address(two, j)


@given(pool, slots)
def test_a_slot_is_within_bounds(subnet: IPv4Network, slot: int) -> None:
    address = subnets.address(subnet, slot)
    assert address in subnet
    assert address not in (subnets.gateway(subnet), subnet[0], subnet[-1])
    base = subnets.uid_base(subnets.region(subnet), slot)
    assert base > 0x2000_0000
    assert base + subnets.IDS < 2**32


def test_the_first_and_the_last_slot() -> None:
    subnet = subnets.POOL[0]
    assert str(subnets.gateway(subnet)) == "10.208.0.1"
    assert str(subnets.address(subnet, 1)) == "10.208.0.2"
    assert str(subnets.address(subnet, 4000)) == "10.208.15.161"
    assert subnets.mac(subnets.address(subnet, 1)) == "02:42:0a:d0:00:02"


@pytest.mark.parametrize("slot", [0, -1, 4001])
def test_slots_beyond_the_range_are_refused(slot: int) -> None:
    with pytest.raises(InvalidArgument):
        subnets.address(subnets.POOL[0], slot)
    with pytest.raises(InvalidArgument):
        subnets.uid_base(0, slot)


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "10.208.0.0/16"),
        (["0.0.0.0/0", "192.168.0.0/16"], "10.208.0.0/16"),
        (["10.208.7.0/24"], "10.209.0.0/16"),
        (["10.208.0.0/15", "10.210.3.4/32"], "10.211.0.0/16"),
        (["10.0.0.0/8"], "10.208.0.0/16"),
        (["10.0.0.0/8", "10.208.0.0/16"], "10.209.0.0/16"),
    ],
)
def test_choice(taken: list[str], chosen: str) -> None:
    assert str(subnets.choose(map(IPv4Network, taken))) == chosen


def test_no_subnet_is_free() -> None:
    with pytest.raises(InvalidArgument, match="all 47 that it chooses from") as found:
        subnets.choose(subnets.POOL)
    assert "ip route" in found.value.hint


def test_many_daemons_find_a_subnet_each() -> None:
    taken: list[IPv4Network] = []
    for _ in range(40):
        taken.append(subnets.choose(taken))
    assert len(set(taken)) == 40
    assert all(0 <= subnets.region(subnet) < subnets.REGIONS for subnet in taken)
    last = subnets.uid_base(subnets.region(subnets.POOL[subnets.REGIONS - 1]), COUNT)
    assert last + subnets.IDS < 2**32


@given(st.sets(st.sampled_from(subnets.POOL), max_size=subnets.REGIONS - 1))
def test_one_more_daemon_shares_no_user_ids(others: set[IPv4Network]) -> None:
    """Wherever they are in the pool: there may have been many more before."""
    chosen = subnets.choose(others)
    assert chosen not in others
    assert subnets.region(chosen) not in map(subnets.region, others)


def test_a_subnet_of_another_is_refused() -> None:
    mine = IPv4Network("10.213.0.0/16")
    assert subnets.check(mine, [IPv4Network("10.0.0.0/8")]) == mine
    with pytest.raises(InvalidArgument, match=r"10\.213\.0\.0/16"):
        subnets.check(mine, [mine])


def test_a_subnet_of_ones_own_has_a_region_too() -> None:
    assert 0 <= subnets.region(IPv4Network("172.30.0.0/16")) < subnets.REGIONS
