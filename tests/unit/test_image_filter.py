"""`--filter` of the commands on images."""

from __future__ import annotations

import pytest

from sublet.domain import image_filter
from sublet.domain.errors import InvalidArgument
from sublet.domain.image import Image, ImageConfig

NOW = 2_000_000_000.0


def image(*names: str, created: float = NOW - 3600, **labels: str) -> Image:
    return Image("sha256:" + "a" * 64, 1, created, 0, 1, ImageConfig(labels=labels), names)


def chosen(images: list[Image], *texts: str) -> list[int]:
    found = image_filter.parse(texts, NOW, lambda _: NOW - 1800)
    return [index for index, each in enumerate(images) if found.matches(each)]


def test_each_kind() -> None:
    images = [
        image("a:1", colour="blue"),
        image(),
        image("r.example/team/a:2", "b:1", created=NOW - 60, colour="red"),
    ]
    assert chosen(images) == [0, 1, 2]
    assert chosen(images, "dangling=true") == [1]
    assert chosen(images, "dangling=false") == [0, 2]
    assert chosen(images, "label=colour") == [0, 2]
    assert chosen(images, "label=colour=red") == [2]
    assert chosen(images, "label!=colour=red") == [0, 1]
    assert chosen(images, "label=colour", "label=size") == []
    assert chosen(images, "until=30m") == [0, 1]
    assert chosen(images, "until=2033-05-18T02:50:00") == [0, 1]
    assert chosen(images, f"until={NOW - 100:.0f}") == [0, 1]
    assert chosen(images, "before=x") == [0, 1]
    assert chosen(images, "since=x") == [2]
    assert chosen(images, "reference=a", "reference=b") == [0, 2]


@pytest.mark.parametrize(
    ("name", "pattern", "like"),
    [
        ("a:1", "a", True),
        ("a:1", "a:1", True),
        ("a:1", "a:2", False),
        ("a:1", "*", True),
        ("a:1", "*:1", True),
        ("team/a:1", "*", False),
        ("team/a:1", "*/*", True),
        ("team/a:1", "team/*:1", True),
        ("r.example:5000/a:1", "r.example:5000/a", True),
        ("r.example:5000/a:1", "*/a", True),
        ("postgres:15", "post*:1?", True),
    ],
)
def test_references(name: str, pattern: str, like: bool) -> None:
    assert image_filter.is_like(name, pattern) is like


@pytest.mark.parametrize(
    "text", ["", "dangling", "dangling=", "dangling=maybe", "colour=red", "until=soon", "=x"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidArgument):
        chosen([], text)


def test_prune_takes_fewer() -> None:
    with pytest.raises(InvalidArgument, match="reference=a"):
        image_filter.parse(["reference=a"], NOW, lambda _: NOW, image_filter.FOR_PRUNE)
