"""The guest agent's program for copies (`guest/copy.c`), run on this host without any guest: it
must be the same to the archives' other reader and writer, `sublet.archive`."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sublet.archive.entry import Entry, header
from sublet.archive.pack import Options
from sublet.archive.reader import Reader
from sublet.archive.transfer import send
from sublet.drivers.vm.tool import explain

OWNER = {"uid": os.geteuid(), "gid": os.getegid()}
PROGRAM = Path(sys.prefix) / "libexec" / "sublet-guest"
LONG = "x" * 120


def run(*args: str | Path, data: bytes = b"") -> bytes:
    """What the program writes. Raises what it complains of."""
    argv = [str(PROGRAM), "files", *map(str, args)]
    done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=30)
    if done.returncode:
        raise explain(done.returncode, done.stderr)
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all that an archive can hold, and that needs no rights to be made."""
    top = tmp_path / "src"
    deep = top / "sub" / LONG / ("y" * 100)
    deep.mkdir(parents=True)
    (top / "a").write_bytes(b"hello")
    (top / "b").hardlink_to(top / "a")
    (top / "l").symlink_to("z" * 150)
    with (top / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"data" * 2000)
        file.truncate(3 << 20)
    with (top / "empty").open("wb") as file:
        file.truncate(1 << 20)
    os.mkfifo(top / "fifo")
    os.setxattr(top / "a", "user.key", b"v\0w")
    (top / "a").chmod(0o4755)
    os.utime(top / "a", (5, -5))
    (deep / "f").write_bytes(os.urandom(300_000))
    return top


def ours(path: Path) -> bytes:
    return b"".join(send(str(path), follow=False, options=Options(xattrs=True)))


def test_writes_what_the_other_writer_writes(tree: Path) -> None:
    assert run("send", tree, "src") == ours(tree)


def test_what_it_unpacks_is_the_same_again(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    assert run("receive", tmp_path / "to", "new", "1", "keep", data=ours(tree)) == b"11 0"
    assert run("send", tmp_path / "to" / "new", "src") == ours(tree)


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
def test_reads_what_gnu_tar_writes(tree: Path, tmp_path: Path, format: str) -> None:
    os.utime(tree / "a", (5, 5))
    if format == "ustar":  # it has neither names that are as long, nor holes
        for name in ("l", "holes", "empty"):
            (tree / name).unlink()
        shutil.rmtree(tree / "sub")
    argv = ["tar", "-C", tree.parent, f"--format={format}", "-cf", "-", "src"]
    argv[1:1] = ["--sparse"] if format != "ustar" else []
    archive = subprocess.run(argv, capture_output=True, check=True).stdout
    (tmp_path / "to").mkdir()
    run("receive", tmp_path / "to", "", "0", "keep", data=archive)
    os.removexattr(tree / "a", "user.key")
    assert run("send", tmp_path / "to" / "src", "src") == run("send", tree, "src")


def test_holes_stay_holes(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    run("receive", tmp_path / "to", "", "0", "keep", data=ours(tree))
    assert (tmp_path / "to/src/empty").stat().st_blocks == 0
    assert (tmp_path / "to/src/holes").stat().st_blocks <= (tree / "holes").stat().st_blocks


def test_a_link_of_the_archive_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "to").mkdir()
    archive = header(Entry("l", "2", link=str(tmp_path / "out"))) + header(Entry("l/f", "0"))
    with pytest.raises(Exception, match="l is no directory, and a directory"):
        run("receive", tmp_path / "to", "", "0", "keep", data=archive + bytes(1024))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (b"x" * 7000, "no tar archive"),
        (header(Entry("../f", "0")) + bytes(1024), "leads out of it: ../f"),
        (header(Entry("f", "0", size=9)), "ends too early"),
        (header(Entry("f", "0", size=1 << 40)) + bytes(1024), "ends too early"),
        (header(Entry("f", "0", size=3, extents=((7, 3),))), "malformed sparse file"),
        (header(Entry("f", "9")), "unknown type"),
    ],
)
def test_a_bad_archive(tmp_path: Path, archive: bytes, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        run("receive", tmp_path, "", "0", "keep", data=archive)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_any_damage_is_an_error_and_no_crash(tree: Path, tmp_path: Path) -> None:
    """One byte of each header at a time; what it says is for `explain`, and never a signal."""
    (tree / "sub" / LONG / ("y" * 100) / "f").unlink()
    archive = bytearray(ours(tree))
    to = tmp_path / "to"
    to.mkdir()
    for at in range(0, len(archive), 97):
        damaged = bytearray(archive)
        damaged[at] ^= 0xFF
        argv = [str(PROGRAM), "files", "receive", str(to), "", "0", "keep"]
        done = subprocess.run(argv, input=bytes(damaged), capture_output=True, check=False)
        assert done.returncode in (0, 1), at
        if done.returncode:
            assert explain(1, done.stderr).message


def test_a_device_is_left_out(tmp_path: Path) -> None:
    archive = header(Entry("d", "3", device=(1, 3))) + bytes(1024)
    assert run("receive", tmp_path, "", "0", "keep", data=archive) == b"0 1"


def test_where_there_is_a_directory_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    archive = header(Entry("f", "0", **OWNER)) + bytes(1024)
    with pytest.raises(Exception, match="f is a directory"):
        run("receive", tmp_path, "", "0", "keep", data=archive)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_looks_where_a_path_leads(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")
    assert run("look", tmp_path / "d", "follow") == f"directory {tmp_path}/d".encode()
    assert run("look", tmp_path / "one", "follow") == f"nothing {tmp_path}/missing".encode()
    with pytest.raises(Exception, match="Too many levels"):
        run("look", tmp_path / "loop", "follow")


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=f"There is no {tmp_path}/nope"):
        run("send", tmp_path / "nope", "nope")
    with pytest.raises(Exception, match="there is nothing to copy"):
        run("send", "/dev/null", "null")


def test_a_followed_link_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"text")
    (tmp_path / "l").symlink_to("f")
    with tarfile.open(fileobj=io.BytesIO(run("send", tmp_path / "l", "l", "follow"))) as archive:
        assert [(m.name, m.size) for m in archive] == [("l", 4)]
    first = Reader([run("send", tmp_path / "l", "l")]).next()
    assert first is not None
    assert (first.kind, first.link) == ("2", "f")
