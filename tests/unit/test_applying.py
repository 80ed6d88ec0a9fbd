"""Changes made to a directory: what they say comes true in there, and nowhere else."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sublet.archive.applying import Applied, apply
from sublet.archive.entry import (
    CHARACTER,
    DIRECTORY,
    END,
    FILE,
    HARD_LINK,
    LINK,
    Entry,
    header,
    padded,
)
from sublet.archive.making import Owner
from sublet.domain.errors import CorruptArchive, SubletError


def archive(*members: Entry | tuple[Entry, bytes]) -> list[bytes]:
    """A tar stream of entries, files with their data."""
    found = []
    for member in members:
        entry, data = member if isinstance(member, tuple) else (member, b"")
        found.append(header(entry) + padded(data))
    return [*found, END]


def file(name: str, data: bytes = b"new", mode: int = 0o644) -> tuple[Entry, bytes]:
    return Entry(name, FILE, mode=mode, size=len(data)), data


def row(text: str, kind: str = "file") -> dict[str, Any]:
    change, path = text.split(" ")
    return {"kind": change, "path": path, "type": kind, "size": 0}


def applied(
    place: Path, rows: list[dict[str, Any]], pieces: Iterable[bytes], since: float | None = None
) -> Applied:
    return apply(str(place), rows, pieces, Owner.CALLER, since)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    (target / "dir").mkdir(parents=True)
    (target / "dir/inner").write_text("old")
    (target / "plain").write_text("old")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("old")
    return target


def test_all_kinds_of_changes(place: Path) -> None:
    rows = [
        *(row("C /dir", "link"), row("C /plain", "directory"), row("A /plain/x")),
        *(row("A /tool"), row("A /null", "special"), row("A /socket", "special"), row("D /gone")),
    ]
    pieces = archive(
        Entry("dir", LINK, link="/etc"),
        Entry("plain", DIRECTORY, mode=0o2750),
        file("plain/x", b"x"),
        file("tool", mode=0o4755),
        Entry("null", CHARACTER, device=(1, 3)),
    )
    (place / "gone").mkdir()
    (place / "gone/deep").touch()
    done = applied(place, rows, pieces)
    assert os.readlink(place / "dir") == "/etc"
    assert stat.S_IMODE((place / "plain").stat().st_mode) == 0o750
    assert (place / "plain/x").read_text() == "x"
    assert stat.S_IMODE((place / "tool").stat().st_mode) == 0o755
    assert sorted(p.name for p in place.iterdir()) == ["dir", "plain", "tool"]
    assert (done.kept, done.left_out) == ([], 2)
    assert done.applied == ["/dir", "/plain", "/plain/x", "/tool", "/gone"]


def test_what_has_changed_meanwhile_stays(place: Path) -> None:
    since = time.time() + 60
    rows = [row("C /plain"), row("D /dir", "directory"), row("A /new")]
    pieces = archive(file("plain"), file("new"))
    done = applied(place, rows, pieces, since - 120)
    assert (done.kept, done.applied) == (["/plain", "/dir"], ["/new"])
    assert ((place / "plain").read_text(), (place / "dir/inner").read_text()) == ("old", "old")
    assert applied(place, rows, pieces, since).kept == []
    assert ((place / "plain").read_text(), (place / "dir").exists()) == ("new", False)


def test_links_lead_nowhere(place: Path, tmp_path: Path) -> None:
    """Neither those that the changes bring nor those that are in their way."""
    (place / "there").symlink_to(tmp_path / "outside")
    rows = [row("A /made", "link"), row("A /made/precious"), row("D /there/precious")]
    pieces = archive(Entry("made", LINK, link=str(tmp_path / "outside")), file("made/precious"))
    with pytest.raises(SubletError):
        applied(place, rows, pieces)
    with pytest.raises(SubletError):
        applied(place, [row("C /there/precious")], archive(file("there/precious")))
    assert (tmp_path / "outside/precious").read_text() == "old"


def test_names_lead_nowhere(place: Path, tmp_path: Path) -> None:
    for path in ("/../outside/precious", "/dir/../../outside/precious", "/", "/dir//inner"):
        with pytest.raises(CorruptArchive):
            applied(place, [row(f"D {path}")], archive())
    hidden = archive(file("../outside/precious"), file("unasked"), file("plain"))
    applied(place, [row("C /plain")], hidden)
    assert (tmp_path / "outside/precious").read_text() == "old"
    assert not (place / "unasked").exists()


def test_a_hard_link_is_to_what_came_with_it(place: Path) -> None:
    rows = [row("A /one"), row("A /two"), row("A /three")]
    pieces = archive(
        file("one"),
        Entry("two", HARD_LINK, link="one"),
        Entry("three", HARD_LINK, link="plain"),
    )
    done = applied(place, rows, pieces)
    assert (place / "two").stat().st_ino == (place / "one").stat().st_ino
    assert not (place / "three").exists()
    assert done.left_out == 1


def test_a_link_that_takes_the_directorys_place_leads_nowhere(place: Path) -> None:
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    outside = place.with_name("outside")
    place.rename(place.with_name("moved"))
    place.symlink_to(outside)
    try:
        pieces = archive(file("plain"))
        apply(str(place), [row("C /plain")], pieces, Owner.CALLER, None, held)
        os.fstat(held)  # it is still the caller's
    finally:
        os.close(held)
    assert os.listdir(outside) == ["precious"]
    assert (place.with_name("moved") / "plain").read_text() == "new"
