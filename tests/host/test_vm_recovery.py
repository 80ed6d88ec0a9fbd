"""The daemon dies at every step of what VMs alone have: the next one finds a true state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Sublet, eventually
from vmhost import COUNT, IMAGE, LOOP, SMALL, count, daemon, memory_of, row, state

POINTS = {
    "start": "taps,disks,template,launch,ready,configure".split(","),
    "hibernate": "save memory,quiesce,stand still,devices,pages,teardown".split(","),
    "wake": "taps,launch,renew".split(","),
    "fork": "save memory,stand still,pages,pause".split(","),
    "snapshot": "save memory,stand still,pages,pause".split(","),
}
"""Steps of each request at which the daemon is killed; the rest is every instance's."""
NORMAL = ("start/ready:before", "hibernate/pages:after", "hibernate/teardown:before")
NORMAL += ("wake/renew:after", "fork/pages:after", "snapshot/pages:after")
"""Those of the normal tier; all are in the slow one."""


@pytest.fixture(scope="module")
def frail(busybox_file: Path) -> Iterator[Sublet]:
    """A daemon that is killed again and again, with a VM that must not notice."""
    with daemon(busybox_file) as sublet:
        sublet.ok("run", "-d", *SMALL, "--name", "bystander", IMAGE, *COUNT)
        yield sublet
        sublet.ok("rm", "-f", "bystander")


@pytest.fixture(autouse=True)
def no_victim(frail: Sublet) -> Iterator[None]:
    yield
    frail.ok("rm", "-f", "victim", "twin")


def moments(request: str) -> list[Any]:
    steps = [f"{request}/{step}" for step in POINTS[request]]
    points = [f"{step}:{when}" for step in steps for when in ("before", "after")]
    return [p if p in NORMAL else pytest.param(p, marks=pytest.mark.slow) for p in points]


def dies(sublet: Sublet, point: str, *args: str) -> None:
    """Run a command against a daemon that dies at `point`; the next finds all in order."""
    before = count(sublet, "bystander")
    sublet.ok("daemon", "--stop")
    outcome = replace(sublet, extra={**sublet.extra, "SUBLET_FAULT": point})(*args)
    assert "The daemon went away" in outcome.err, f"{point} was not met: {outcome}"
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")
    assert state(sublet, "bystander") == "running"
    assert count(sublet, "bystander") >= before


def victim(sublet: Sublet) -> int:
    """A VM that counts in memory and has written to its disk; how far it was."""
    sublet.ok("run", "-d", *SMALL, "--name", "victim", IMAGE, *COUNT)
    sublet.ok("exec", "victim", "sh", "-c", "echo kept > /mark; sync")
    return count(sublet, "victim")


def goes_on(sublet: Sublet, name: str, before: int) -> None:
    first = count(sublet, name)
    assert first >= before
    eventually(lambda: count(sublet, name) > first, f"{name} goes on")
    assert sublet.ok("exec", name, "cat", "/mark") == "kept"


def states(sublet: Sublet) -> dict[str, str]:
    rows = sublet.json("ps", "-a", "--json")
    return {r["name"]: r["state"] for r in rows if r["name"] != "bystander"}


@pytest.mark.parametrize("point", moments("start"))
def test_start(frail: Sublet, point: str) -> None:
    dies(frail, point, "run", "-d", *SMALL, "--name", "victim", IMAGE, *LOOP)
    found = states(frail)
    assert found in ({}, {"victim": "running"})
    if found:
        assert frail.ok("exec", "victim", "echo", "here") == "here"


@pytest.mark.parametrize("point", moments("hibernate"))
def test_hibernation(frail: Sublet, point: str) -> None:
    before = victim(frail)
    dies(frail, point, "hibernate", "victim")
    assert state(frail, "victim") in ("running", "hibernated")
    if state(frail, "victim") == "hibernated":
        frail.ok("wake", "victim")
    goes_on(frail, "victim", before)
    eventually(lambda: memory_of(frail, "victim") == [], "its memory is gone")


@pytest.mark.parametrize("point", moments("wake"))
def test_waking(frail: Sublet, point: str) -> None:
    before = victim(frail)
    frail.ok("hibernate", "victim")
    dies(frail, point, "wake", "victim")
    found = row(frail, "victim")
    if found["state"] == "stopped":  # it went on and was cut off: its memory is of no use
        assert "lost when it was woken" in str(found["reason"])
        frail.ok("start", "victim")
        assert frail.ok("exec", "victim", "cat", "/mark") == "kept"
        return
    if found["state"] == "hibernated":
        frail.ok("wake", "victim")
    goes_on(frail, "victim", before)


@pytest.mark.parametrize("point", moments("fork"))
def test_fork(frail: Sublet, point: str) -> None:
    before = victim(frail)
    dies(frail, point, "fork", "victim", "--name", "twin")
    assert states(frail) == {"victim": "running"}
    goes_on(frail, "victim", before)


@pytest.mark.parametrize("point", moments("snapshot"))
def test_snapshot(frail: Sublet, point: str) -> None:
    before = victim(frail)
    kept = frail.ok("snapshot", "--memory", "victim")
    dies(frail, point, "snapshot", "--memory", "victim")
    assert [s["id"] for s in frail.json("snapshots", "--json")] == [kept]
    goes_on(frail, "victim", before)
    frail.ok("rollback", "victim", kept)
    goes_on(frail, "victim", before)


def test_every_step_is_known(frail: Sublet) -> None:
    """The lists above are what the trace has, but for the steps that all requests share."""
    frail.ok("daemon", "--stop")
    traced = replace(frail, extra={**frail.extra, "SUBLET_TRACE": "1"})
    traced.ok("run", "-d", *SMALL, "--name", "victim", IMAGE, *LOOP)
    traced.ok("snapshot", "--memory", "victim")
    traced.ok("fork", "victim", "--name", "twin")
    traced.ok("hibernate", "victim")
    traced.ok("wake", "victim")
    frail.ok("daemon", "--stop")
    met: dict[str, set[str]] = {}
    for line in map(json.loads, (frail.run_dir / "trace.jsonl").read_text().splitlines()):
        met.setdefault(line["request"], set()).update(step["name"] for step in line["steps"])
    for request, steps in POINTS.items():
        assert set(steps) <= met[request], request
