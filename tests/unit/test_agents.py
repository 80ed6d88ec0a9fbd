"""What agents may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.agents import (
    DEFAULT,
    Policy,
    check_policy,
    grant,
    network_of,
    within,
)
from sublet.domain.errors import InvalidArgument, NotPermitted
from sublet.domain.spec import Isolation

NAMES = st.lists(st.sampled_from(["pypi.org", "debian.org", "a.debian.org", "*.debian.org"]))


def test_nothing_asked_gives_what_the_policy_says() -> None:
    given = grant(DEFAULT)
    assert (given.image, given.size, given.ttl) == ("debian:bookworm", "1x0.5", 3600)
    assert (given.isolation, given.network) == (Isolation.CONTAINER, ("internet",))


@pytest.mark.parametrize(
    "asked",
    [
        {"size": "4x1"},
        {"size": "1x8"},
        {"ttl": "25h"},
        {"ttl": "0s"},
        {"network": "example.org"},
        {"network": ["internet"]},
        {"network": ["debian.org"]},
        {"isolation": "container"},
    ],
)
def test_more_than_is_permitted(asked: dict[str, str]) -> None:
    policy = Policy(isolation=Isolation.VM, network=("pypi.org", "*.debian.org"))
    with pytest.raises(NotPermitted):
        grant(policy, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"size": "huge"},
        {"ttl": "soon"},
        {"isolation": "jail"},
        {"network": "none,pypi.org"},
        {"network": "default"},
    ],
)
def test_what_is_malformed(asked: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        grant(DEFAULT, **asked)


def test_less_is_permitted() -> None:
    policy = Policy(network=("pypi.org", "*.debian.org"))
    given = grant(policy, size="2x4", ttl="24h", network="pypi.org, deb.debian.org", isolation="vm")
    assert given.network == ("pypi.org", "deb.debian.org")
    assert (given.isolation, given.ttl) == (Isolation.VM, 86400)
    assert grant(policy, network="none").network == ("none",)


@given(NAMES, NAMES)
def test_who_may_reach_less_reaches_no_name_that_more_does_not(
    asked: list[str], most: list[str]
) -> None:
    reached = {"pypi.org", "debian.org", "a.debian.org", "b.debian.org"}

    def names(words: list[str]) -> set[str]:
        wide = [word[1:] for word in words if word.startswith("*")]
        return {n for n in reached if n in words or any(n.endswith(w) for w in wide)}

    if within(asked, most):
        assert names(asked) <= names(most)


def test_defaults_that_are_more_than_the_most() -> None:
    with pytest.raises(InvalidArgument):
        check_policy(Policy(size="4x8"))
    with pytest.raises(InvalidArgument):
        check_policy(Policy(most=0))
    with pytest.raises(InvalidArgument):
        check_policy(Policy(disk="much"))
    check_policy(DEFAULT)
    assert network_of(("a.org,b.org", "c.org")) == ("a.org", "b.org", "c.org")


def test_addresses() -> None:
    most = ("198.51.100.0/24", "pypi.org")
    assert within(("198.51.100.7", "198.51.100.0/25"), most)
    assert not within(("198.51.101.7",), most)
    assert not within(("198.51.0.0/16",), most)


@pytest.mark.parametrize("subnet", ["192.168.1.0/24", "10.1.2.3", "100.64.0.0/10", "8.0.0.0/5"])
def test_the_internet_is_not_the_network_around_the_host(subnet: str) -> None:
    assert not within((subnet,), ("internet",))
    assert within(("pypi.org", "198.51.100.0/24"), ("internet",))
    assert within((subnet,), (subnet,))


@pytest.mark.parametrize("path", ["/root/backup.tar", "./disk.raw", "../x.sif", "-v", ".", ""])
def test_an_image_is_a_name_and_no_file_of_the_host(path: str) -> None:
    if path:
        with pytest.raises(InvalidArgument):
            grant(DEFAULT, image=path)
    mine = Policy(image="/srv/mine.sif")
    assert {grant(mine, image=text).image for text in ("", mine.image)} == {mine.image}


def test_images_come_from_registries_that_the_owner_knows() -> None:
    for image in ("localhost:5000/a", "192.168.1.1/a", "secret.example.org/a:b"):
        with pytest.raises(NotPermitted, match="registry"):
            grant(DEFAULT, image=image)
    known = Policy(image="one.example/base", registries=("two.example:5000",))
    for image in ("one.example/a", "two.example:5000/b", "python:3.11", "team/app"):
        assert grant(known, image=image).image == image


def test_images_that_are_named() -> None:
    policy = Policy(image="debian:bookworm", images=("python:3.11", "node:*"))
    for image in ("", "debian:bookworm", "python:3.11", "node:18"):
        assert grant(policy, image=image).image == (image or "debian:bookworm")
    for image in ("python:3.12", "docker.io/library/node:18", "mynode:18", "a1b2c3d4e5f6"):
        with pytest.raises(NotPermitted, match="not permitted"):
            grant(policy, image=image)
    with pytest.raises(NotPermitted, match="registry"):
        grant(Policy(images=("*",)), image="localhost:5000/a")
