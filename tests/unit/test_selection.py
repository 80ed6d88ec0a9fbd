"""The filters of `ps`, `prune` and `events`, and points in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sublet.domain import event, selection
from sublet.domain.errors import InvalidArgument
from sublet.domain.event import Event
from sublet.domain.health import Health
from sublet.domain.image import Image, ImageConfig
from sublet.domain.instance import Instance, State
from sublet.domain.moments import moment
from sublet.domain.mounts import Mount
from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec

SPEC = InstanceSpec(
    image="debian:bookworm",
    labels={"team": "red", "mark": ""},
    ports=(Port(80, 8080, "0.0.0.0", "tcp"),),
    mounts=(Mount("/srv/data", "/data"),),
    network="front",
)
DIGEST = "sha256:" + "ab" * 32
ROW = Instance(
    "0123456789ab", "web_1", "debian:bookworm", DIGEST, SPEC, 1, State.RUNNING, 100.0, started=101.0
)
STOPPED = replace(ROW, state=State.STOPPED, exit_code=3)
CREATED = replace(ROW, state=State.STOPPED, started=0.0)
IMAGE = Image(DIGEST, 1, 0.0, 0, 1, ImageConfig(labels={"vendor": "x"}), ("debian:bookworm", "d:1"))


def selects(*texts: str, row: Instance = ROW, keys: tuple[str, ...] = ()) -> bool:
    found = selection.parse(
        texts, 1000.0, {"old": 50.0, "new": 150.0}.__getitem__, keys or selection.KEYS
    )
    return found.matches(row, IMAGE)


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("id=0123",),
        ("name=eb",),
        ("name=^web_1$",),
        ("name=/web_1",),
        ("label=team",),
        ("label=team=red", "label=mark", "label=vendor=x"),
        ("status=running",),
        ("status=stopped", "status=running"),
        ("ancestor=debian:bookworm",),
        ("ancestor=d:1",),
        ("ancestor=abababababab",),
        ("ancestor=" + DIGEST,),
        ("health=none",),
        ("network=front",),
        ("volume=/data",),
        ("volume=/srv/data",),
        ("publish=8080",),
        ("publish=8000-9000/tcp",),
        ("since=old", "before=new"),
        ("until=800s",),
    ],
)
def test_what_a_filter_takes(texts: tuple[str, ...]) -> None:
    assert selects(*texts)


@pytest.mark.parametrize(
    "texts",
    [
        ("id=123",),
        ("name=^eb",),
        ("label=team=blue",),
        ("label=team", "label=other"),
        ("status=paused",),
        ("exited=3",),
        ("ancestor=debian",),
        ("ancestor=abab",),
        ("health=healthy",),
        ("network=default",),
        ("volume=data",),
        ("publish=80",),
        ("publish=8080/udp",),
        ("publish=x",),
        ("since=new",),
        ("before=old",),
        ("until=950s",),
        ("name=web", "status=stopped"),
    ],
)
def test_what_a_filter_leaves_out(texts: tuple[str, ...]) -> None:
    assert not selects(*texts)


def test_states_by_dockers_words() -> None:
    assert selects("exited=3", row=STOPPED)
    assert selects("status=exited", row=STOPPED)
    assert not selects("status=created", row=STOPPED)
    assert selects("status=created", row=CREATED)
    assert not selects("status=exited", row=CREATED)
    assert selects("health=healthy", row=replace(ROW, health=Health.HEALTHY))


def test_a_prune_keeps_what_has_the_label() -> None:
    assert not selects("label!=team", keys=selection.FOR_PRUNE)
    assert not selects("label!=team=red", keys=selection.FOR_PRUNE)
    assert selects("label!=team=blue", keys=selection.FOR_PRUNE)


@pytest.mark.parametrize("text", ["", "x", "colour=red", "name=", "status=odd", "exited=x"])
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(InvalidArgument):
        selects(text)


def test_events_are_filtered() -> None:
    detail = {"name": "web", "image": "i:1", "label:team": "red"}
    seen = Event(5.0, "instance.stopped", "0123456789ab", detail)
    for texts in (
        ["type=instance"],
        ["event=stopped"],
        ["event=instance.stopped", "event=running"],
        ["instance=web"],
        ["container=0123"],
        ["image=i:1", "label=team", "label=team=red"],
    ):
        assert event.matches(seen, event.parse(texts)), texts
    for texts in (
        ["type=image"],
        ["event=running"],
        ["instance=we"],
        ["image=i:2"],
        ["label=team=blue"],
        ["event=stopped", "instance=other"],
    ):
        assert not event.matches(seen, event.parse(texts)), texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1764000000", 1764000000.0),
        ("1764000000.5", 1764000000.5),
        ("10m", 1000.0 - 600),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:00:00.500000000+01:00", 0.5),
        ("1970-01-02", 86400.0),
    ],
)
def test_points_in_time(text: str, expected: float) -> None:
    assert moment(text, 1000.0) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-5m", "2026-13-01", "nan"])
def test_no_points_in_time(text: str) -> None:
    with pytest.raises(InvalidArgument, match="point in time"):
        moment(text, 1000.0)
