"""What the network driver writes for others to read: rules, names, commands."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from sublet.domain.errors import InvalidArgument
from sublet.domain.ports import Port
from sublet.drivers.network import dns, forward, foundation, rules
from sublet.drivers.network.cables import Cable
from sublet.drivers.network.hosts import Hosts
from sublet.drivers.network.identity import Identity, Plan, owner, veth

ID = "0123456789ab"
PLAN = Plan(Identity.of(Path("/run/sublet")), IPv4Network("10.208.0.0/16"))
ADDRESS = IPv4Address("10.208.0.2")
CABLE = Cable(ID, 0, ADDRESS, PLAN.default)


def test_identities_differ_by_run_directory() -> None:
    default, one, two = (Identity.of(Path(p)) for p in ("/run/sublet", "/tmp/a", "/tmp/b"))
    assert (default.bridge, default.table) == ("sublet0", "sublet")
    assert one.bridge.startswith("sb")
    assert len(one.bridge) == 10
    assert one.table == f"sublet_{one.bridge[2:]}"
    assert len({default.group, one.group, two.group}) == 3
    assert all(0 < identity.group < 2**31 - 1 for identity in (default, one, two))


def test_a_cable_names_its_owner() -> None:
    assert veth(ID) == "v0123456789ab"
    assert len(veth(ID)) <= 15
    assert owner(veth(ID)) == ID
    assert owner("veth0123456789") == ""
    with pytest.raises(InvalidArgument):
        veth('x"; flush ruleset')


def test_rules_are_complete() -> None:
    text = rules.ruleset(PLAN)
    assert "{" not in text.replace("{ ", "").replace("{\n", ""), "every field is filled in"
    for rule in (
        'input iifname "sublet0" jump to_host',
        "from_instances ip daddr 169.254.0.0/16 drop",
        "to_host drop",
        "to_instances drop",
        f"guard meta iifgroup != {PLAN.identity.group} accept",
        "guard drop",
    ):
        assert rule in text
    assert '"sublet0" . 10.208.0.0/20' in text
    assert "delete" not in text, "a renewal keeps the elements"


def test_publications() -> None:
    def add(port: Port) -> str:
        element = rules.publication(ID, ADDRESS, port)
        return element.add("sublet") if element else ""

    assert add(Port(80, 8080)) == (
        f'add element inet sublet published {{ tcp . 8080 comment "{ID}" : 10.208.0.2 . 80 }}\n'
    )
    assert add(Port(53, 53, "192.0.2.2", "udp")) == (
        "add element inet sublet published_at "
        f'{{ 192.0.2.2 . udp . 53 comment "{ID}" : 10.208.0.2 . 53 }}\n'
    )
    assert add(Port(80, 8080, "127.0.0.1")) == ""


def test_ports_of_who_sleeps() -> None:
    assert rules.sleeper(ID, Port(80, 8080)).add("sublet") == (
        f'add element inet sublet asleep {{ tcp . 8080 comment "{ID}" }}\n'
    )
    assert rules.sleeper(ID, Port(53, 53, "192.0.2.2", "udp")).add("sublet") == (
        f'add element inet sublet asleep_at {{ 192.0.2.2 . udp . 53 comment "{ID}" }}\n'
    )
    value = {"val": {"concat": ["tcp", 8080]}, "comment": ID}
    listing = [{"set": {"family": "inet", "name": "asleep", "elem": [{"elem": value}]}}]
    assert rules.elements(listing) == [rules.sleeper(ID, Port(80, 8080))]


def test_removal_succeeds_for_what_is_gone() -> None:
    element = rules.endpoint(CABLE)
    key = f'"v{ID}" . 02:42:0a:d0:00:02 . 10.208.0.2'
    assert element.delete("sublet") == (
        f"add element bridge sublet endpoints {{ {key} }}\n"
        f"delete element bridge sublet endpoints {{ {key} }}\n"
    )


def test_elements_are_read_back() -> None:
    listing = [
        {"table": {"family": "inet", "name": "sublet"}},
        {
            "map": {
                "family": "inet",
                "name": "published",
                "elem": [
                    [
                        {"elem": {"val": {"concat": ["tcp", 8080]}, "comment": ID}},
                        {"concat": ["10.208.0.2", 80]},
                    ]
                ],
            }
        },
        {"set": {"family": "bridge", "name": "endpoints"}},
        {
            "set": {
                "family": "bridge",
                "name": "endpoints",
                "elem": [{"concat": [f"v{ID}", "02:42:0a:d0:00:02", "10.208.0.2"]}],
            }
        },
    ]
    assert rules.elements(listing) == [
        rules.publication(ID, ADDRESS, Port(80, 8080)),
        rules.endpoint(CABLE),
    ]


def test_forwarder_commands() -> None:
    assert forward.command(Port(80, 8080), "10.208.0.2") == [
        "socat",
        "TCP4-LISTEN:8080,bind=0.0.0.0,reuseaddr,fork,max-children=1024,backlog=1024",
        "TCP4:10.208.0.2:80",
    ]
    assert forward.command(Port(53, 5353, "127.0.0.1", "udp"), "10.208.0.2") == [
        "socat",
        "-T",
        "60",
        "UDP4-LISTEN:5353,bind=127.0.0.1,reuseaddr,fork,max-children=1024",
        "UDP4:10.208.0.2:53",
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", "nameserver 10.208.0.1\noptions ndots:0\n"),
        (
            "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a.example b.example\n",
            "nameserver 10.208.0.1\nsearch a.example b.example\noptions ndots:0\n",
        ),
        (
            "options ndots:2 timeout:1\n",
            "nameserver 10.208.0.1\noptions ndots:2 timeout:1\n",
        ),
        (
            "options ndots:2\noptions ndots:3\nsearch\n",
            "nameserver 10.208.0.1\noptions ndots:2 ndots:3\n",
        ),
    ],
)
def test_resolv_conf(host: str, expected: str) -> None:
    assert dns.resolver_text("10.208.0.1", host) == expected


def test_resolvers_of_the_host_are_found() -> None:
    text = "nameserver 10.208.3.4\nnameserver fd00::1\nnameserver\n\nsearch x\n"
    assert foundation.resolvers(text) == [IPv4Network("10.208.3.4/32")]


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path / "dns")
    with pytest.raises(InvalidArgument):
        hosts.add(ID, "10.208.0.2", ["a\n10.0.0.1 b"])
    with pytest.raises(InvalidArgument):
        hosts.add("../../etc/x", "10.208.0.2", ["a"])
    with pytest.raises(InvalidArgument):
        hosts.remove("../x")
    assert hosts.entries() == {}
