"""Networks: subnets that do not overlap, places in them, requests that cannot be."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import networks, slots, subnets
from sublet.domain.errors import InsufficientCapacity, InvalidArgument
from sublet.domain.networks import STANDARD, Mode, NamedNetwork, NetworkSpec

BASE = IPv4Network("10.208.0.0/16")
numbers = st.integers(16, 255)


@given(numbers, numbers, st.integers(1, slots.COUNT))
def test_no_two_networks_share_addresses(one: int, two: int, slot: int) -> None:
    first, second = (NamedNetwork("a" * 12, "a", n).within(BASE) for n in (one, two))
    assert (one == two) == first.overlaps(second)
    assert first.subnet_of(BASE)
    default = STANDARD.within(BASE)
    assert not first.overlaps(default)
    assert subnets.address(BASE, slot) == default[slots.offset(slot)]
    assert slots.offset(slot) < default.num_addresses - 1


def test_numbers() -> None:
    assert networks.number_for("", [0], BASE, [IPv4Network("0.0.0.0/0"), BASE]) == 16
    assert networks.number_for("", [0, 16, 18], BASE, [IPv4Network("10.208.17.0/25")]) == 19
    assert networks.number_for("10.9.9.0/24", [0, 16, 256], BASE, []) == 257
    with pytest.raises(InsufficientCapacity, match="no room"):
        networks.number_for("", range(256), BASE, [])


@given(st.sets(st.integers(1, 6)), st.integers(0, 6))
def test_the_next_place(taken: set[int], last: int) -> None:
    subnet = IPv4Network("10.9.9.0/29")
    if len(taken) == 6:
        with pytest.raises(InsufficientCapacity, match="taken"):
            networks.offset_after(last, taken, subnet)
        return
    found = networks.offset_after(last, taken, subnet)
    assert 1 <= found <= 6
    assert found not in taken


@pytest.mark.parametrize(
    ("subnet", "gateway"),
    [
        ("10.9.9.0/30", ""),
        ("10.9.9.0/33", ""),
        ("fd00::/64", ""),
        ("127.0.0.0/24", ""),
        ("169.254.0.0/16", ""),
        ("224.0.0.0/8", ""),
        ("0.0.0.0/0", ""),
        ("10.208.77.0/24", ""),
        ("192.0.2.0/24", ""),
        ("", "10.9.9.1"),
        ("10.9.9.0/24", "10.9.9.0"),
        ("10.9.9.0/24", "10.9.9.255"),
        ("10.9.9.0/24", "10.9.8.1"),
        ("10.9.9.0/24", "x"),
    ],
)
def test_subnets_that_cannot_be(subnet: str, gateway: str) -> None:
    taken = [IPv4Network("0.0.0.0/0"), IPv4Network("192.0.2.128/25")]
    with pytest.raises(InvalidArgument):
        networks.check_network_spec(NetworkSpec("a", subnet, gateway), BASE, taken)


def test_a_subnet_is_written_one_way() -> None:
    spec = networks.check_network_spec(NetworkSpec("a", "10.9.9.7/24"), BASE, [])
    network = NamedNetwork("a" * 12, "a", 256, spec.subnet)
    assert (spec.subnet, str(network.door(BASE))) == ("10.9.9.0/24", "10.9.9.1")


@pytest.mark.parametrize("name", ["", "default", "bridge", "none", "host", "container", "a/b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgument):
        networks.check_network_spec(NetworkSpec(name), BASE, [])


def test_modes() -> None:
    modes = [Mode.of(text) for text in ("", "back", "none", "host", "container:web")]
    assert modes == [Mode.NETWORKS, Mode.NETWORKS, Mode.NONE, Mode.HOST, Mode.CONTAINER]
    assert [mode.own for mode in modes] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("network", "alias", "ports", "sysctls"),
    [
        ("none", "", True, False),
        ("host", "", True, False),
        ("container:web", "", True, False),
        ("host", "", False, True),
        ("container:web", "", False, True),
        ("none", "db", False, False),
        ("back", "a.b", False, False),
        ("back", "-a", False, False),
    ],
)
def test_requests_that_cannot_be(network: str, alias: str, ports: bool, sysctls: bool) -> None:
    with pytest.raises(InvalidArgument):
        networks.check_request(network, [alias] * bool(alias), ports=ports, sysctls=sysctls)
    networks.check_request("back", ["db"], ports=True, sysctls=True)
    networks.check_request("none", [], ports=False, sysctls=True)


def test_filters() -> None:
    network = NamedNetwork("3f" * 6, "back", 16, internal=True, labels={"team": "x"})
    for text in ("name=ac", "id=3f3", "label=team", "label=team=x", "internal=true"):
        assert networks.matches(network, networks.parse([text])), text
    for text in ("name=x", "id=f3", "label=t", "label=team=y", "internal=false"):
        assert not networks.matches(network, networks.parse([text])), text
    assert networks.matches(network, networks.parse(["name=x", "name=back", "label=team"]))
    assert not networks.matches(network, networks.parse(["label=team", "label=colour"]))
    for text in ("name", "colour=red", "internal=perhaps"):
        with pytest.raises(InvalidArgument):
            networks.parse([text])
