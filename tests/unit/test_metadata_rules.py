"""The metadata tree, its tokens and its pace, as rules."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import tokens
from sublet.domain.metadata import VERSIONS, Interface, View, answer
from sublet.domain.notice import Action, Notice, Reason
from sublet.domain.pace import Pace

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3pO7gkQe7x1rYjvV0u3Zq5wV2bE0m9yq1nYb7c8d9e me@here"
CABLE = Interface(0, "02:42:0a:d0:00:02", "10.208.0.2", "0" * 12, "10.208.0.0/20")
PLAIN = View(
    "0123456789ab", "sha256:" + "a1" * 32, "2x4", "spot", "web", "amd64", 1.6e9, interfaces=(CABLE,)
)
NOTICE = Notice("0123456789ab", Action.TERMINATE, Reason.OWNER, 1504944082.9, 1504944202.9)


def meta(view: View, path: str) -> str | None:
    return answer(view, f"/latest/meta-data/{path}")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ami-id", "ami-a1a1a1a1a1a1a1a1a"),
        ("hostname", "web"),
        ("instance-id", "i-0123456789ab"),
        ("instance-life-cycle", "spot"),
        ("instance-type", "2x4"),
        ("local-ipv4", "10.208.0.2"),
        ("mac", "02:42:0a:d0:00:02"),
        ("network/interfaces/macs/", "02:42:0a:d0:00:02/"),
        ("network/interfaces/macs/02:42:0a:d0:00:02/device-number", "0"),
        ("network/interfaces/macs/02:42:0a:d0:00:02/subnet-ipv4-cidr-block", "10.208.0.0/20"),
        ("placement/", "availability-zone\nregion"),
        ("placement/region", "local-1"),
        ("placement/availability-zone/", "local-1a"),
        ("events/", "maintenance/"),
        ("events/maintenance/scheduled", "[]"),
    ],
)
def test_what_is_said(path: str, said: str) -> None:
    assert meta(PLAIN, path) == said


@pytest.mark.parametrize(
    "path",
    [
        "/latest/user-data",
        "/latest/meta-data/spot",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/spot/termination-time",
        "/latest/meta-data/events/recommendations/rebalance",
        "/latest/meta-data/tags/instance",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/public-keys/0",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/api/token",
        "/newest/",
        "/latest/meta-data/../meta-data/mac",
    ],
)
def test_where_there_is_nothing(path: str) -> None:
    assert answer(PLAIN, path) is None


def test_listings() -> None:
    assert answer(PLAIN, "/") == "\n".join(VERSIONS)
    assert answer(PLAIN, "/latest") == answer(PLAIN, "/2021-03-23/") == "dynamic\nmeta-data"
    listed = (meta(PLAIN, "") or "").splitlines()
    assert listed == sorted(listed)
    assert {"network/", "placement/", "services/", "mac"} < set(listed)
    assert "spot/" not in listed


def test_a_notice() -> None:
    view = replace(PLAIN, notice=NOTICE)
    assert meta(view, "spot/") == "instance-action\ntermination-time"
    action = '{"action": "terminate", "time": "2017-09-09T08:03:22Z"}'
    assert meta(view, "spot/instance-action") == action
    assert meta(view, "spot/termination-time") == "2017-09-09T08:03:22Z"
    assert meta(view, "events/recommendations/rebalance") == (
        '{"noticeTime": "2017-09-09T08:01:22Z"}'
    )
    stops = replace(PLAIN, notice=replace(NOTICE, action=Action.STOP))
    assert json.loads(meta(stops, "spot/instance-action") or "")["action"] == "stop"
    assert meta(stops, "spot/termination-time") is None, "of instances that end by it alone"


def test_keys_and_labels_and_user_data() -> None:
    keys = (KEY, KEY.rpartition(" ")[0])
    labels = {"team": "a b", "a/b": "no path", "..": "", "_index": "", "": ""}
    view = replace(PLAIN, keys=keys, labels=labels, user_data="#!/bin/sh\n")
    assert meta(view, "public-keys/") == "0=me@here\n1=key-1"
    assert meta(view, "public-keys/0/") == "openssh-key"
    assert meta(view, "public-keys/0/openssh-key") == KEY
    assert meta(view, "tags/instance/") == "team"
    assert meta(view, "tags/instance/team") == "a b"
    assert answer(view, "/latest/user-data") == "#!/bin/sh\n"
    assert "user-data" in (answer(view, "/latest/") or "").splitlines()


def test_the_identity_document() -> None:
    document = json.loads(answer(PLAIN, "/latest/dynamic/instance-identity/document") or "")
    assert document["instanceId"] == "i-0123456789ab"
    assert document["architecture"] == "x86_64"
    assert document["privateIp"] == "10.208.0.2"
    assert document["pendingTime"] == "2020-09-13T12:26:40Z"


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.lists(st.text(), max_size=3))
def test_every_listed_path_is_there(labels: dict[str, str], keys: list[str]) -> None:
    view = replace(PLAIN, labels=labels, keys=keys, user_data="x", notice=NOTICE)

    def walk(path: str) -> int:
        said = answer(view, path)
        assert said is not None, path
        if not path.endswith("/"):
            return 1
        return sum(walk(path + name) for name in map(entry, said.split("\n")))

    def entry(name: str) -> str:
        number, named, _ = name.partition("=")
        return number + "/" if named and number.isdigit() else name

    assert walk("/latest/meta-data/") > 20


@given(st.text())
def test_any_path_has_an_answer_or_none(path: str) -> None:
    assert isinstance(answer(PLAIN, path), str | None)
    assert isinstance(meta(PLAIN, path), str | None)


@given(st.binary(min_size=tokens.KEY, max_size=tokens.KEY), st.floats(0, 4e9), st.floats(1, 21600))
def test_a_token_is_good_for_one_instance_and_a_time(key: bytes, now: float, ttl: float) -> None:
    token = tokens.issue(key, "0123456789ab", now + ttl)
    assert len(token) == 56
    left = tokens.remaining(key, "0123456789ab", token, now)
    assert left == pytest.approx(ttl, abs=1e-3)
    assert not tokens.remaining(key, "0123456789ab", token, now + ttl + 1e-3)
    assert not tokens.remaining(key, "0123456789ac", token, now)
    assert not tokens.remaining(key[:-1] + bytes([key[-1] ^ 1]), "0123456789ab", token, now)
    assert not tokens.remaining(key, "0123456789ab", token, now - tokens.LONGEST)


@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    assert tokens.remaining(b"k" * tokens.KEY, "0123456789ab", text, 0) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_no_more_than_the_burst_and_the_rate(steps: list[float]) -> None:
    pace, due, now, served = Pace(rate=2, burst=5), 0.0, 0.0, []
    for step in steps:
        now += step
        due, wait = pace.next(due, now)
        served.append(now + wait)
    for start in served:
        within = [time for time in served if start <= time < start + 3]
        assert len(within) <= 5 + 2 * 3 + 1e-6
