"""A full disk: said in a sentence, nothing half-made stays, and it works when there is room."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import context, refused, temporaries
from conftest import BASE, Sublet
from imagelab import call

SIZE = 64 << 20
LEFT = 64 << 10
"""Bytes that `filled` leaves: too few for anything but the database."""


@pytest.fixture
def tight(tmp_path: Path, small_file: Path) -> Iterator[Sublet]:
    """A daemon whose root is a disk of 64 MB, with a small image."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.root.mkdir()
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, SIZE)
    call("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", disk)
    call("mount", "-o", "loop", disk, sublet.root)
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    yield sublet
    sublet.clean()
    assert temporaries(sublet) == []
    sublet.ok("daemon", "--stop")
    call("umount", sublet.root)
    shutil.rmtree(sublet.home)


@contextlib.contextmanager
def filled(place: Path, left: int = LEFT) -> Iterator[None]:
    """A file takes the disk's room, but for `left` bytes."""
    file = place / "filler"
    with file.open("wb") as opened, contextlib.suppress(OSError):
        os.posix_fallocate(opened.fileno(), 0, shutil.disk_usage(place).free - left)
    try:
        yield
    finally:
        file.unlink()


def full(sublet: Sublet, *args: str, code: int = 1, kept: int = 1 << 20) -> None:
    """The command says that the disk is full, and leaves it as it was, but for `kept` bytes."""
    before = shutil.disk_usage(sublet.root).used
    outcome = refused(sublet, *args, code=code, says="No space left on the host")
    assert "sublet rmi" in outcome.err
    assert temporaries(sublet) == []
    assert shutil.disk_usage(sublet.root).used < before + kept


def noise(place: Path, size: int = SIZE) -> Path:
    place.mkdir(exist_ok=True)
    (place / "noise").write_bytes(os.urandom(size))
    return place


def test_import_pack_and_build(tight: Sublet, tmp_path: Path, base_file: Path) -> None:
    tree = noise(tmp_path / "tree")
    call("tar", "-C", tree, "-cf", tmp_path / "noise.tar", ".")
    full(tight, "import", str(base_file))
    full(tight, "import", str(base_file), "--trust", "-t", BASE)
    full(tight, "import", str(tmp_path / "noise.tar"))
    full(tight, "pack", str(tree), "-o", str(tmp_path / "x.sif"))
    full(tight, "run", str(base_file), code=125)
    place = context(tree, "FROM small\nCOPY noise /\n")
    full(tight, "build", place, "-t", "never", kept=8 << 20)  # the base stays in the build store
    assert [row["name"] for row in tight.json("images", "--json")] == ["small:latest"]
    (tree / "noise").write_text("little")
    tight.ok("build", place, "-t", "made")
    assert tight.ok("run", "--rm", "made", "cat", "/noise") == "little"


def test_a_full_target(tight: Sublet, sublet: Sublet) -> None:
    """The image is elsewhere, and what is to be written does not fit."""
    place = tight.root / "out"
    place.mkdir()
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    for args in (("pack", BASE, "-o", f"{place}/x.sif"), ("export", "box", "-o", f"{place}/x.tar")):
        outcome = sublet(*args)
        assert (outcome.code, outcome.out) == (1, "")
        assert "No space left on" in outcome.err
        assert "Traceback" not in outcome.err
        assert list(place.iterdir()) == []


def test_run(tight: Sublet) -> None:
    """Without any room, a start fails as a whole; with room again, it works."""
    for flags in (("--rm",), ("-d",)):
        with filled(tight.root, 0):
            full(tight, "run", *flags, "small", "true", code=125)
        assert tight.ok("run", "--rm", "small", "echo", "again") == "again"


def test_a_full_disk_from_inside(tight: Sublet) -> None:
    """An instance that fills the disk can be listed, stopped and removed."""
    script = "while cat /big; do :; done > /more; echo full; sleep 100"
    tight.ok("run", "-d", "--name", "greedy", "small", "sh", "-c", f"cat /bin/sh > /big; {script}")
    from conftest import eventually

    eventually(lambda: shutil.disk_usage(tight.root).free < LEFT, "the disk is full", 60)
    assert [row["state"] for row in tight.json("ps", "--json")] == ["running"]
    tight.ok("stop", "-t", "0", "greedy")
    tight.ok("rm", "greedy")
    assert tight.ok("run", "--rm", "small", "echo", "again") == "again"
