"""Directories that are watched, by the program that works in containers and in guests."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sublet.domain.errors import CopyFailed
from sublet.domain.file_events import Events, FileChange, FileEvent, lines

AGENT = [str(Path(sys.prefix) / "libexec" / "sublet-guest"), "files", "watch"]
DEADLINE = 20.0
Happened = tuple[str, str]


class Watch:
    """One program at work; paths are told without `top`."""

    def __init__(self, argv: list[str], top: Path) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.top, self.events = str(top), Events()
        self.seen: list[Happened] = []
        assert self.until("ready") == [("ready", "")]

    def until(self, change: str, path: str = "") -> list[Happened]:
        """What happens until that has."""
        assert self.process.stdout is not None
        while True:
            for number, each in enumerate(self.seen):
                if each[0] == change and each[1].startswith(path):
                    found, self.seen = self.seen[: number + 1], self.seen[number + 1 :]
                    return found
            readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
            assert readable, f"no {change} {path}; seen: {self.seen}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended; seen: {self.seen}; {self.process.communicate()[1]!r}"
            for event in self.events.feed(data):
                way = event.path + (f" {event.to}" if event.to else "")
                self.seen.append((event.type.value, way.replace(self.top, "")))


Start = Callable[..., Watch]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Watch] = []

    def started(path: Path, *, recursive: bool = False) -> Watch:
        rest = ["recursive"] if recursive else []
        made.append(Watch([*AGENT, str(path), *rest], path))
        return made[-1]

    yield started
    for each in made:
        each.process.kill()
        each.process.communicate()


def test_what_happens_in_a_directory(start: Start, tmp_path: Path) -> None:
    watch = start(tmp_path)
    (tmp_path / "a").write_text("1")
    assert watch.until("modified") == [("created", "/a"), ("modified", "/a")]
    (tmp_path / "a").rename(tmp_path / "b")
    assert watch.until("moved") == [("moved", "/a /b")]
    (tmp_path / "b").chmod(0o700)
    assert watch.until("modified") == [("modified", "/b")]
    (tmp_path / "b").unlink()
    assert ("deleted", "/b") in watch.until("deleted")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "below").touch()
    (tmp_path / "end").touch()
    assert watch.until("created", "/end") == [("created", "/dir"), ("created", "/end")]


def test_a_deep_directory(start: Start, tmp_path: Path) -> None:
    """As deep as a tenant likes: it costs the program's stack nothing."""
    deep = str(tmp_path)
    for _ in range(700):
        deep += "/d"
        os.mkdir(deep)
    watch = start(tmp_path, recursive=True)
    with open(f"{deep}/end", "w"):
        assert watch.until("created", f"{deep}/end".removeprefix(str(tmp_path)))


def test_what_is_moved_in_and_out(start: Start, tmp_path: Path) -> None:
    inner, outer = tmp_path / "in", tmp_path / "out"
    inner.mkdir()
    outer.mkdir()
    (outer / "x").touch()
    watch = start(inner)
    (outer / "x").rename(inner / "x")
    assert watch.until("created") == [("created", "/x")]
    (inner / "x").rename(outer / "x")
    assert watch.until("deleted") == [("deleted", "/x")]


def test_many_writes_are_told_as_few(start: Start, tmp_path: Path) -> None:
    """Those that come while nobody reads, as the kernel has it (inotify(7))."""
    watch = start(tmp_path)
    watch.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, watch.process.pid, os.WSTOPPED)
    with (tmp_path / "log").open("wb", buffering=0) as file:
        for _ in range(1000):
            file.write(b"x")
    (tmp_path / "end").touch()
    watch.process.send_signal(signal.SIGCONT)
    assert len(watch.until("created", "/end")) < 10


def test_what_is_below(start: Start, tmp_path: Path) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/")
    watch = start(tmp_path, recursive=True)
    (tmp_path / "old" / "deep" / "f").touch()
    assert watch.until("created") == [("created", "/old/deep/f")]
    (tmp_path / "new" / "more").mkdir(parents=True)
    watch.until("created", "/new/more")
    (tmp_path / "new" / "more" / "g").touch()
    watch.until("created", "/new/more/g")
    (tmp_path / "old").rename(tmp_path / "older")
    watch.until("moved", "/old /older")
    (tmp_path / "older" / "deep" / "h").touch()
    watch.until("created", "/older/deep/h")


def test_a_directory_that_has_left_is_watched_no_more(
    start: Start, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "dir").mkdir()
    watch = start(tmp_path, recursive=True)
    away = tmp_path_factory.mktemp("away") / "dir"
    (tmp_path / "dir").rename(away)
    watch.until("deleted", "/dir")
    (away / "f").touch()
    (tmp_path / "end").touch()
    assert all("/f" not in path for _, path in watch.until("created", "/end"))


def test_one_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    watch = start(tmp_path / "f")
    (tmp_path / "f").write_text("x")
    assert watch.until("modified") == [("modified", "")]
    (tmp_path / "f").unlink()
    watch.until("deleted")
    assert watch.process.wait(DEADLINE) == 0


def test_it_ends_with_its_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    watch = start(tmp_path / "dir", recursive=True)
    (tmp_path / "dir").rmdir()
    assert watch.until("deleted")[-1] == ("deleted", "")
    assert watch.process.wait(DEADLINE) == 0


def test_what_is_not_there_cannot_be_watched(start: Start, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="it ended"):
        start(tmp_path / "nosuch")


def test_names_that_are_no_text(start: Start, tmp_path: Path) -> None:
    watch = start(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).touch()
    assert watch.until("created") == [("created", "/\ufffd\n")]


@pytest.mark.parametrize("size", [1, 5, 100])
def test_events_come_in_pieces_of_any_size(size: int) -> None:
    data, events = b"created\0/a\0\0moved\0/a\0/b\0lost\0/\0\0", Events()
    found = []
    for begin in range(0, len(data), size):
        found += events.feed(data[begin : begin + size])
    assert found == [
        FileEvent(FileChange.CREATED, "/a"),
        FileEvent(FileChange.MOVED, "/a", "/b"),
        FileEvent(FileChange.LOST, "/"),
    ]
    assert lines(found[1:2]) == b'{"type": "moved", "path": "/a", "to": "/b"}\n'


@pytest.mark.parametrize("data", [b"eaten\0/a\0\0", b"created\0a\0\0", b"x" * 100_000])
def test_nonsense_is_said_to_be(data: bytes) -> None:
    with pytest.raises(CopyFailed, match="makes no sense"):
        Events().feed(data)
