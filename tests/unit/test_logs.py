"""Reading a container's log: lines, several files, and files that change while one follows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sublet.drivers.container import logs


def line(text: str) -> str:
    return f"2026-01-01T00:00:00Z stdout F {text}\n"


def append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


async def texts(entries: AsyncIterator[logs.Entry]) -> list[str]:
    return [entry.data.decode().strip() async for entry in entries]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_files_are_read_the_oldest_first(log: Path) -> None:
    for name, text in (("log", "d"), ("log.1", "c"), ("log.2", "a")):
        log.with_name(name).write_text(line(text))
    append(log.with_name("log.2"), line("b"))
    assert await texts(logs.read(log, lambda: False)) == ["a", "b", "c", "d"]


async def test_no_log_is_no_entries(log: Path) -> None:
    assert await texts(logs.read(log, lambda: False)) == []


async def test_following_goes_on_across_rotations(log: Path) -> None:
    log.write_text(line("a"))
    steps = iter(range(9))

    def following() -> bool:
        step = next(steps)
        if step == 1:  # twice, before the reader looks again
            append(log, line("b"))
            log.rename(log.with_name("log.1"))
            log.write_text(line("c"))
            log.with_name("log.1").rename(log.with_name("log.2"))
            log.rename(log.with_name("log.1"))
            log.write_text(line("d") + line("e")[:-5])
        if step == 2:
            append(log, line("e")[-5:])
        return step < 3

    assert await texts(logs.read(log, following)) == ["a", "b", "c", "d", "e"]


async def test_a_rotation_that_is_under_way(log: Path) -> None:
    log.with_name("log.1").write_text(line("a"))  # the new file is not there yet
    steps = iter(range(9))

    def following() -> bool:
        step = next(steps)
        if step == 1:
            log.write_text(line("b"))
        return step < 2

    assert await texts(logs.read(log, following)) == ["a", "b"]


async def test_a_log_of_one_file_begins_anew(log: Path) -> None:
    log.write_text(line("long enough"))
    steps = iter(range(9))

    def following() -> bool:
        step = next(steps)
        if step == 1:
            os.truncate(log, 0)
            append(log, line("b"))
        return step < 2

    assert await texts(logs.read(log, following)) == ["long enough", "b"]
