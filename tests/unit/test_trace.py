"""The trace: one line a request, with the steps of all its tasks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sublet.drivers import trace


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SUBLET_TRACE", "1")
    trace.start(tmp_path)
    file = tmp_path / "trace.jsonl"
    yield lambda: [json.loads(line) for line in file.read_text().splitlines()]
    monkeypatch.delenv("SUBLET_TRACE")
    trace.start(tmp_path)


async def test_steps_of_a_request_and_of_its_tasks(lines: Any) -> None:
    async def beside() -> None:
        with trace.step("beside"):
            await asyncio.sleep(0)

    with trace.request("start"):
        trace.about("abc")
        with trace.step("outer"):
            with trace.step("inner"):
                pass
            await asyncio.gather(beside())
    (line,) = lines()
    assert (line["request"], line["instance"]) == ("start", "abc")
    steps = {step["name"]: step for step in line["steps"]}
    assert list(steps) == ["inner", "beside", "outer"]
    outer = steps["outer"]
    for step in steps.values():
        assert line["begin"] <= outer["begin"] <= step["begin"] <= step["end"] <= outer["end"]
    assert outer["end"] <= line["end"]


async def test_requests_beside_each_other_keep_their_steps_apart(lines: Any) -> None:
    async def one(name: str) -> None:
        with trace.request(name), trace.step(f"of {name}"):
            await asyncio.sleep(0)

    await asyncio.gather(one("a"), one("b"))
    found = {line["request"]: [step["name"] for step in line["steps"]] for line in lines()}
    assert found == {"a": ["of a"], "b": ["of b"]}


def test_a_request_that_fails_is_written(lines: Any) -> None:
    with pytest.raises(OSError, match="gone"), trace.request("exec"), trace.step("enter"):
        raise OSError("gone")
    assert [line["request"] for line in lines()] == ["exec"]


def test_the_file_is_bounded(lines: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace, "MAXIMUM", 500)
    for _ in range(100):
        with trace.request("start"):
            pass
    sizes = [file.stat().st_size for file in tmp_path.glob("trace.jsonl*")]
    assert len(sizes) == 2
    assert max(sizes) < 1000


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    trace.start(tmp_path)
    with trace.request("start"), trace.step("network"):
        trace.about("abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_fault_kills_at_its_step_and_at_no_other(tmp_path: Path, moment: str) -> None:
    program = (
        "import sys; from pathlib import Path; from sublet.drivers import trace\n"
        "trace.start(Path(sys.argv[1]))\n"
        "for request, step in ('end', 'network'), ('start', 'row'), ('start', 'network'):\n"
        "    with trace.request(request), trace.step(step):\n"
        "        print(request, step, flush=True)\n"
        "print('lived')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "SUBLET_FAULT": f"start/network:{moment}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    seen = ["end network", "start row", "start network"]
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.splitlines() == seen[: 2 if moment == "before" else 3]
