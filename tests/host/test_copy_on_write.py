"""Directories of the host that an instance has copy-on-write: it writes, and they stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet

WRITE = "cd /w; echo changed > a; rm b; mv sub moved; ln -s / link; chown 7:8 n; echo more >> n"
LOOK = "cd /w; cat a moved/c n; ls -x; stat -c %u:%g n"
SEEN = ["changed", "three", "four", "more", "a", "link", "moved", "n", "7:8"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as it is to stay."""
    for name, text in {"a": "one", "b": "two", "sub/c": "three", "n": "four"}.items():
        file = tmp_path / "dir" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    os.chown(tmp_path / "dir", 1000, 1001)
    os.chmod(tmp_path / "dir", 0o750)
    return tmp_path / "dir"


def listing(place: Path) -> list[tuple[object, ...]]:
    """All that is in a directory, and whose."""
    found: list[tuple[object, ...]] = []
    for path in sorted([place, *place.rglob("*")]):
        status = path.lstat()
        text = path.read_text() if path.is_file() else ""
        found.append((path.name, status.st_mode, status.st_uid, status.st_mtime_ns, text))
    return found


@pytest.mark.parametrize("disk", [(), ("--disk", "100m")])
def test_what_is_written_is_the_instances_own(
    sublet: Sublet, place: Path, disk: tuple[str, ...]
) -> None:
    before = listing(place)
    mounted = ("-v", f"{place}:/w:cow", *disk)
    sublet.ok("run", "-d", "--name", "box", *mounted, BASE, "sleep", "1000")
    assert sublet.ok("exec", "box", "stat", "-c", "%u:%g %a", "/w") == "1000:1001 750"
    sublet.ok("exec", "box", "sh", "-c", WRITE)
    assert sublet.ok("exec", "box", "sh", "-c", LOOK).split() == SEEN
    assert sublet.json("inspect", "box")["mounts"][0]["cow"] is True
    sublet.ok("restart", "-t", "0", "box")
    assert sublet.ok("exec", "box", "sh", "-c", LOOK).split() == SEEN
    twin = sublet.ok("run", "-d", *mounted, BASE, "sleep", "1000")
    assert sublet.ok("exec", twin, "cat", "/w/a") == "one"
    sublet.ok("stop", "-t", "0", "box")
    sublet.ok("cp", "box:/w/a", str(place.parent / "copy"))
    assert (place.parent / "copy").read_text() == "changed\n"
    assert listing(place) == before


@pytest.mark.parametrize("disk", [(), ("--disk", "100m")])
def test_it_is_kept_with_the_instance(sublet: Sublet, place: Path, disk: tuple[str, ...]) -> None:
    """Snapshots, forks and rollbacks take it along."""
    before = listing(place)
    sublet.ok("run", "-d", "--name", "box", *disk, "-v", f"{place}:/w:O", BASE, "sleep", "1000")
    sublet.ok("exec", "box", "sh", "-c", WRITE)
    kept = sublet.ok("snapshot", "box", "--name", "good")
    assert sublet.json("snapshot", "inspect", kept)["volumes"] == []
    twin = sublet.ok("fork", "box")
    assert sublet.ok("exec", twin, "sh", "-c", LOOK).split() == SEEN
    sublet.ok("exec", twin, "sh", "-c", "rm -r /w/moved; echo twin > /w/a; chown 3:4 /w/a")
    assert sublet.ok("exec", "box", "sh", "-c", LOOK).split() == SEEN
    sublet.ok("exec", "box", "sh", "-c", "rm -r /w/*")
    third = sublet.ok("fork", kept)
    assert sublet.ok("exec", third, "sh", "-c", LOOK).split() == SEEN
    fourth = sublet.ok("fork", twin)
    assert sublet.ok("exec", fourth, "sh", "-c", "cat /w/a; stat -c %u:%g /w/a") == "twin\n3:4"
    sublet.ok("rollback", "box", "good")
    assert sublet.ok("exec", "box", "sh", "-c", LOOK).split() == SEEN
    assert listing(place) == before


def test_what_cannot_be_mounted_so(sublet: Sublet, place: Path) -> None:
    run = ("run", "--rm", "-v")
    refused(sublet, *run, f"{place}/a:/w:cow", BASE, "true", says="only a directory")
    refused(sublet, *run, f"{place}/x:/w:cow", BASE, "true", says="does not exist")
    refused(sublet, *run, f"{place}:/w:ro,cow", BASE, "true", says="both read-only")
    refused(sublet, *run, "name:/w:cow", BASE, "true", says="of the host")
    refused(sublet, *run, f"{place}:/w:cow", "--vm", BASE, "true", says="A VM cannot have")
