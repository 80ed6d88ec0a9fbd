"""Policies for connections outwards: what is one, what it allows, and what nftables is told."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from sublet.domain import change
from sublet.domain.egress import allows_address, allows_name, asks_us, parse_egress
from sublet.domain.errors import InvalidArgument
from sublet.domain.spec import InstanceSpec, check_spec
from sublet.drivers.network import egress, questions, rules
from sublet.drivers.network.identity import Identity, Plan
from sublet.drivers.network.rules import Element

ID = "0123456789ab"
ADDRESS = IPv4Address("10.208.0.2")
PLAN = Plan(Identity.of(Path("/run/sublet")), IPv4Network("10.208.0.0/16"))
SPEC = InstanceSpec(image="debian:bookworm", cpus=1, memory=1 << 29)


@pytest.mark.parametrize(
    ("texts", "policy"),
    [
        ([], None),
        (["default"], None),
        (["none"], ("none",)),
        (["Internet"], ("internet",)),
        (["Example.ORG.,*.example.net", "example.org"], ("example.org", "*.example.net")),
        (["198.51.100.7", "10.1.0.0/16"], ("198.51.100.7", "10.1.0.0/16")),
        (["_acme.xn--bcher-kva.example"], ("_acme.xn--bcher-kva.example",)),
    ],
)
def test_parsing(texts: list[str], policy: tuple[str, ...] | None) -> None:
    assert parse_egress(texts) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none,internet",
        "none,example.org",
        "localhost",
        "*",
        "*.org",
        "a.*.org",
        "-a.example.org",
        "a..example.org",
        "http://example.org",
        "example.org:443",
        "1.2.3",
        "1.2.3.4/8",
        "0.0.0.0/0",
        "169.254.169.254",
        "127.0.0.1",
        "::1",
        "bücher.example",
        'a.org" }; flush ruleset',
        "a" * 64 + ".org",
        ".".join(["a" * 60] * 5),
        ",".join(f"a{n}.org" for n in range(300)),
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_egress([text])
    assert refused.value.hint


def test_names_on_a_list() -> None:
    policy = ("example.org", "*.example.net")
    for name in ("example.org", "EXAMPLE.org.", "a.example.net", "a.b.example.net"):
        assert allows_name(policy, name), name
    for name in ("www.example.org", "example.net", "aexample.net", "org", "", "*.example.net.evil"):
        assert not allows_name(policy, name), name
    assert not allows_name(("none",), "none")
    assert not allows_name(("internet",), "internet")
    assert [asks_us(p) for p in (None, ("none",), ("internet",), policy)] == [
        False,
        True,
        False,
        True,
    ]


def test_names_open_no_private_addresses() -> None:
    for text in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "172.31.0.1"):
        assert not allows_address(("example.org",), IPv4Address(text)), text
        assert not allows_address(("example.org", "100.64.0.0/16"), IPv4Address(text)), text
    assert allows_address(("example.org",), IPv4Address("198.51.100.1"))
    assert allows_address(("example.org", "10.1.0.0/16"), IPv4Address("10.1.2.3"))


def test_requests_that_contradict_themselves() -> None:
    check_spec(replace(SPEC, egress=("none",), network="none"))
    check_spec(replace(SPEC, egress=("internet",), dns=("9.9.9.9",)))
    for wrong in (
        replace(SPEC, egress=("none",), network="host"),
        replace(SPEC, egress=("internet",), network="container:other"),
        replace(SPEC, egress=("example.org",), dns=("9.9.9.9",)),
        replace(SPEC, egress=()),
        replace(SPEC, egress=("Example.org",)),
    ):
        with pytest.raises(InvalidArgument):
            check_spec(wrong)


def test_changes() -> None:
    made = change.changed(SPEC, change.Change(egress=("none",)))
    assert made.egress == ("none",)
    assert change.changed(made, change.Change(egress=("default",))).egress is None
    with pytest.raises(InvalidArgument):
        change.changed(SPEC, change.Change(egress=("nonsense",)))


def test_elements() -> None:
    def told(*policy: str) -> dict[str, str]:
        found = egress.elements(ID, policy, ADDRESS, 1)
        return {f"{e.container} {e.key}": e.value for e in found}

    common = {f"confined {ADDRESS}": "", f'isolated "v{ID}01"': ""}
    asking = {f"asking {ADDRESS}": ""}
    place = f"egress {ADDRESS}"
    assert egress.elements(ID, None, ADDRESS, 0) == []
    assert told("internet") == {place: "jump egress_internet", **common}
    assert told("none") == {place: "jump egress_none", **common, **asking}
    assert told("example.org", "10.1.0.0/16", "10.1.2.3", "1.1.1.1") == {
        place: "jump egress_listed",
        f"permitted {ADDRESS} . 1.1.1.1": "",
        f"permitted {ADDRESS} . 10.1.0.0/16": "",
        **common,
        **asking,
    }


def test_elements_are_read_as_they_were_written() -> None:
    listing = [
        {
            "map": {
                "family": "inet",
                "name": "egress",
                "elem": [
                    [
                        {"elem": {"val": "10.208.0.2", "comment": ID}},
                        {"jump": {"target": "egress_listed"}},
                    ]
                ],
            }
        },
        {
            "set": {
                "family": "inet",
                "name": "permitted",
                "elem": [
                    {
                        "elem": {
                            "val": {
                                "concat": [
                                    "10.208.0.2",
                                    {"prefix": {"addr": "10.1.0.0", "len": 16}},
                                ]
                            },
                            "comment": ID,
                        }
                    }
                ],
            }
        },
        {"set": {"family": "bridge", "name": "isolated", "elem": [f"v{ID}"]}},
    ]
    assert rules.elements(listing) == [
        Element("inet", "egress", "10.208.0.2", "jump egress_listed", ID),
        Element("inet", "permitted", "10.208.0.2 . 10.1.0.0/16", "", ID),
        Element("bridge", "isolated", f'"v{ID}"', "", ID),
    ]


def test_rules_refuse_before_they_let_pass() -> None:
    lines = rules.ruleset(PLAN).splitlines()

    def place(text: str) -> int:
        return next(number for number, line in enumerate(lines) if text in line)

    listed = "add rule inet sublet egress_listed "
    assert place("from_instances ip saddr vmap @egress") < place(
        "from_instances iifname . ip daddr"
    )
    assert place(f"{listed}oifname") < place(f"{listed}ip saddr . ip daddr @permitted")
    assert place(f"{listed}ip daddr {{ 0.0.0.0/8") < place(f"{listed}ip saddr . ip daddr @granted")
    assert place("to_host ip saddr @asking") < place("to_host ct state established")
    assert place("redirect to :iifname map @answers") < place("redirect to :ip saddr map @views")


def asked(name: bytes, kind: int = 1, flags: int = 0x0100, family: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return (
        struct.pack(">6H", 7, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, family)
    )


def test_questions() -> None:
    found = questions.question(asked(b"Files.Example.org"))
    assert found
    assert (found.number, found.name, found.kind) == (7, "files.example.org", 1)
    packet = questions.reply(found, 0, [(IPv4Address("1.2.3.4"), 60)])
    told = questions.answer(packet)
    assert told
    assert (told.number, told.name, told.code) == (7, "files.example.org", 0)
    assert told.addresses == ((IPv4Address("1.2.3.4"), 60),)
    assert b"Files" in packet, "as it was written"
    many = [(IPv4Address(number), 1) for number in range(100)]
    assert len(questions.reply(found, 0, many)) <= 512


def test_what_is_no_question() -> None:
    whole = asked(b"files.example.org")
    for wrong in (
        *(whole[:length] for length in range(len(whole))),
        asked(b"files.example.org", flags=0x8100),
        asked(b"files.example.org", flags=0x2900),
        asked(b"files.example.org", family=3),
        asked(b"fil\xffes.example.org"),
        asked(b".".join([b"a" * 63] * 4)),
        whole[:12] + b"\xc0\x0c" + whole[-4:],
        whole[:12] + b"\x05a.b.c\0" + whole[-4:],
    ):
        assert questions.question(wrong) is None, wrong


def test_answers_follow_aliases_and_survive_nonsense() -> None:
    head = struct.pack(">6H", 7, 0x8180, 1, 2, 0, 0) + asked(b"files.example.org")[12:]
    alias = b"\xc0\x0c" + struct.pack(">2HIH", 5, 1, 9, 4) + b"\x01b\xc0\x12"
    address = b"\x01b\xc0\x12" + struct.pack(">2HIH", 1, 1, 9, 4) + b"\x05\x06\x07\x08"
    told = questions.answer(head + alias + address)
    assert told
    assert told.addresses == ((IPv4Address("5.6.7.8"), 9),)
    for length in range(len(head + alias + address)):
        questions.answer((head + alias + address)[:length])
