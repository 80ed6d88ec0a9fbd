"""The rules of `cp`."""

from __future__ import annotations

import pytest

from sublet.domain.copying import (
    Kind,
    Landing,
    Side,
    inside,
    is_contents,
    landing,
    parse_sides,
    top_of,
)
from sublet.domain.errors import CopyFailed, InvalidArgument, NoSuchPath, SubletError

FILE, DIRECTORY, NOTHING = Kind


@pytest.mark.parametrize(
    ("source", "destination", "sides"),
    [
        ("box:/a", "b", (Side("box", "/a"), Side("", "b"))),
        ("box:a:b", "-", (Side("box", "a:b"), Side("", "-"))),
        ("./x:y", "box:/a", (Side("", "./x:y"), Side("box", "/a"))),
        ("/x:y", "box:a/", (Side("", "/x:y"), Side("box", "a/"))),
        ("-", "box:/", (Side("", "-"), Side("box", "/"))),
    ],
)
def test_sides(source: str, destination: str, sides: tuple[Side, Side]) -> None:
    assert parse_sides(source, destination) == sides


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("a", "b"),
        ("box:/a", "other:/b"),
        ("box:", "b"),
        (":/a", "b"),
        ("", "box:/a"),
        ("-", "-"),
        ("box:/a\0", "b"),
        ("box:/\udcff", "b"),
    ],
)
def test_no_sides(source: str, destination: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_sides(source, destination)


@pytest.mark.parametrize(
    ("path", "absolute", "top"),
    [
        ("etc/x", "/etc/x", "x"),
        ("/etc/", "/etc/", "etc"),
        ("/etc/.", "/etc/.", "."),
        ("/", "/", "."),
        (".", "/.", "."),
        ("/../../etc/../x", "/x", "x"),
        ("//a//b", "/a/b", "b"),
    ],
)
def test_paths_inside(path: str, absolute: str, top: str) -> None:
    assert inside(path) == absolute
    assert top_of(absolute) == top
    assert is_contents(absolute) == path.endswith(".")


@pytest.mark.parametrize(
    ("top", "kind", "path", "there", "outcome"),
    [
        ("f", FILE, "/a/new", NOTHING, Landing("/a", "new")),
        ("f", FILE, "new", NOTHING, Landing(".", "new")),
        ("f", FILE, "/new", NOTHING, Landing("/", "new")),
        ("f", FILE, "/a/new/", NOTHING, NoSuchPath),
        ("f", FILE, "/a/old", FILE, Landing("/a", "old")),
        ("f", FILE, "/a/old/", FILE, CopyFailed),
        ("f", FILE, "/a", DIRECTORY, Landing("/a", "f")),
        ("f", FILE, "/", DIRECTORY, Landing("/", "f")),
        ("d", DIRECTORY, "/a/new", NOTHING, Landing("/a", "new")),
        ("d", DIRECTORY, "/a/new/", NOTHING, Landing("/a", "new")),
        ("d", DIRECTORY, "/a/new/.", NOTHING, Landing("/a", "new")),
        (".", DIRECTORY, "/a/new", NOTHING, Landing("/a", "new")),
        ("d", DIRECTORY, "/a/old", FILE, CopyFailed),
        ("d", DIRECTORY, "/a", DIRECTORY, Landing("/a", "d")),
        (".", DIRECTORY, "/a", DIRECTORY, Landing("/a", "")),
    ],
)
def test_landing(
    top: str, kind: Kind, path: str, there: Kind, outcome: Landing | type[SubletError]
) -> None:
    if isinstance(outcome, Landing):
        assert landing(top, kind, path, there) == outcome
    else:
        with pytest.raises(outcome):
            landing(top, kind, path, there)
