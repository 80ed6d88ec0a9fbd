"""Single files of instances: the program that works in containers and in guests (guest/copy.c)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sublet.domain.errors import CopyFailed, InvalidArgument, NoSuchPath
from sublet.domain.file_info import (
    KEEP,
    FileInfo,
    FileType,
    FileVerb,
    Question,
    check_question,
    of_bytes,
)
from sublet.drivers.vm.tool import explain
from sublet.engine.paths import checked
from sublet.sdk._http import query_of

PROGRAM = Path(sys.prefix) / "libexec" / "sublet-guest"


class Program:
    """What is done in a guest, and in a container, here."""

    def run(self, *args: str | Path, data: bytes = b"") -> bytes:
        argv = [str(PROGRAM), "files", *map(str, args)]
        done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=30)
        if done.returncode:
            raise explain(done.returncode, done.stderr)
        return done.stdout

    def fetch(self, path: Path) -> bytes:
        return self.run("fetch", path)

    def store(self, path: Path, data: bytes, mode: int = KEEP) -> None:
        self.run("store", path, "-1" if mode == KEEP else f"{mode:o}", data=data)

    def ask(self, verb: str, path: Path, to: str = "", depth: int = 1) -> list[FileInfo]:
        more = {"rename": [to], "list": [str(depth)]}
        return of_bytes(self.run(verb, path, *more.get(verb, [])))


@pytest.fixture
def program() -> Program:
    return Program()


def test_what_is_written_is_read(program: Program, tmp_path: Path) -> None:
    data, path = os.urandom(300_000), tmp_path / "new" / "deep" / "file"
    program.store(path, data)
    assert program.fetch(path) == data == path.read_bytes()
    assert (path.stat().st_mode & 0o7777, path.parent.stat().st_mode & 0o7777) == (0o644, 0o755)


def test_a_file_that_is_there_keeps_its_mode(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"long before")
    path.chmod(0o700)
    (tmp_path / "link").symlink_to("file")
    program.store(tmp_path / "link", b"short")
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"short", 0o700)
    program.store(path, b"", 0o4711)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"", 0o4711)


def test_what_is_no_file_is_neither_read_nor_written(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    for act in (program.fetch, lambda path: program.store(path, b"x")):
        do: Callable[[Path], object] = act
        with pytest.raises(CopyFailed, match="is a FIFO, a socket or a device"):
            do(tmp_path / "fifo")
        with pytest.raises(CopyFailed, match="is a FIFO, a socket or a device"):
            do(tmp_path / "null")
        with pytest.raises(CopyFailed, match="is a directory, not a file"):
            do(tmp_path)
    with pytest.raises(NoSuchPath):
        program.fetch(tmp_path / "nosuch")
    (tmp_path / "file").touch()
    with pytest.raises(CopyFailed, match="no directory"):
        program.store(tmp_path / "file" / "below", b"x")


def test_a_listing_tells_of_each_name(program: Program, tmp_path: Path) -> None:
    (tmp_path / "dir" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "b file\n").write_bytes(b"12345")
    os.utime(tmp_path / "b file\n", ns=(0, 1_500_000_000_250_000_000))
    (tmp_path / "link").symlink_to("to/nowhere")
    os.mkfifo(tmp_path / "fifo")
    rows = program.ask("list", tmp_path)
    assert [row.name for row in rows] == ["b file\n", "dir", "fifo", "link"]
    file, directory, fifo, link = rows
    assert file == FileInfo(
        "b file\n", f"{tmp_path}/b file\n", FileType.FILE, 5, 0o644, 1_500_000_000.25
    )
    assert (directory.type, fifo.type) == (FileType.DIRECTORY, FileType.OTHER)
    assert (link.type, link.target) == (FileType.SYMLINK, "to/nowhere")
    assert [row.path for row in program.ask("list", tmp_path, depth=2)][-1] == (
        f"{tmp_path}/dir/sub"
    )
    (only,) = program.ask("stat", tmp_path / "dir")
    assert (only.name, only.type) == ("dir", FileType.DIRECTORY)
    assert program.ask("list", Path("/"))[0].path.count("/") == 1
    with pytest.raises(CopyFailed, match="Not a directory"):
        program.ask("list", tmp_path / "b file\n")
    with pytest.raises(NoSuchPath):
        program.ask("stat", tmp_path / "link")


def test_ten_thousand_names(program: Program, tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}").touch()
    rows = program.ask("list", tmp_path)
    assert [row.name for row in rows] == [f"{number:05}" for number in range(10_000)]


def test_directories_are_made_and_removed(program: Program, tmp_path: Path) -> None:
    program.ask("make", tmp_path / "a" / "b" / "c")
    program.ask("make", tmp_path / "a" / "b")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "a" / "b" / "file").touch()
    with pytest.raises(CopyFailed, match="no directory"):
        program.ask("make", tmp_path / "a" / "b" / "file")
    program.ask("remove", tmp_path / "a")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()
    with pytest.raises(NoSuchPath):
        program.ask("remove", tmp_path / "a")


def test_a_deep_tree_is_removed(program: Program, tmp_path: Path) -> None:
    home = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1500):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
    finally:
        os.chdir(home)
    program.ask("remove", tmp_path / ("d" * 100))
    assert list(tmp_path.iterdir()) == []


def test_a_file_gets_another_name(program: Program, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    program.ask("rename", tmp_path / "one", to=f"{tmp_path}/two")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"two": "1"}
    (tmp_path / "dir").mkdir()
    with pytest.raises(CopyFailed, match="dir is a directory"):
        program.ask("rename", tmp_path / "two", to=f"{tmp_path}/dir")
    with pytest.raises(NoSuchPath, match="nosuch"):
        program.ask("rename", tmp_path / "nosuch", to=f"{tmp_path}/dir")


@pytest.mark.parametrize("path", ["/", "/.", "//"])
def test_the_root_stays(path: str) -> None:
    with pytest.raises(InvalidArgument):
        check_question(Question(FileVerb.REMOVE, path))


@pytest.mark.parametrize("data", [b"x 1 2 3 /p\0\0", b"f 1 644 1.000000000 p\0\0", b"\0", b"f\0\0"])
def test_nonsense_is_said_to_be(data: bytes) -> None:
    with pytest.raises(CopyFailed, match="makes no sense"):
        of_bytes(data)


@pytest.mark.parametrize("path", ["", "a\0b", "/" + "n" * 4096, "/\ud800"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(InvalidArgument):
        checked(path)


def test_a_name_that_is_no_utf_8_is_told() -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        query_of({"path": "/\udcff"})
