"""The daemon dies at every step of a start, an end and a removal; the next one makes it good.

The steps are those that SUBLET_TRACE lists; SUBLET_FAULT kills the daemon at one of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Sublet, eventually, slowly

COMMAND = ("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
POINTS = {
    "start": "admit,row,publish,names,namespaces,network,image mount,root,cgroups,start".split(","),
    "end": "withdraw names,unpublish,unplug,cgroups,unmount,runtime delete,teardown,"
    "image unmount,row".split(","),
    "remove": "row,withdraw names,unpublish,unplug,cgroups,unmount,runtime delete,teardown,"
    "image unmount,delete layer,forget".split(","),
}
"""The steps of each request, as the trace names them."""
RARE = {f"end/{step}:before" for step in "unpublish,unplug,unmount,image unmount".split(",")}
RARE |= {f"remove/{step}:before" for step in POINTS["end"] if step != "row"}
"""What a removal has in common with an end, and steps between others of their kind."""


@pytest.fixture(scope="module")
def frail(small_file: Path) -> Iterator[Sublet]:
    """A daemon that is killed again and again, with an instance that must not notice."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    sublet.ok("run", "-d", "--name", "bystander", "small", *COMMAND)
    yield sublet
    sublet.ok("rm", "-f", "bystander")
    sublet.clean()
    sublet.close()


@pytest.fixture(autouse=True)
def no_victim(frail: Sublet) -> Iterator[None]:
    yield
    frail.ok("rm", "-f", "victim")


def with_fault(sublet: Sublet, point: str, *args: str) -> Outcome:
    """Run a command against a daemon that dies at `point`; then the fault is lifted."""
    sublet.ok("daemon", "--stop")
    outcome = replace(sublet, extra={"SUBLET_FAULT": point})(*args)
    assert "The daemon went away" in outcome.err, f"{point} was not met: {outcome}"
    return outcome


def states(sublet: Sublet) -> dict[str, str]:
    return {row["name"]: row["state"] for row in sublet.json("ps", "-a", "--json")}


def settled(sublet: Sublet) -> dict[str, str]:
    """The other instances' states, once the audit is clean; the bystander runs."""
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")
    found = states(sublet)
    assert found.pop("bystander") == "running"
    assert sublet.ok("exec", "bystander", "echo", "here") == "here"
    return found


def moments(request: str) -> list[Any]:
    """Before each step; and after each, which is most often before another, in the slow tier."""
    before = [f"{request}/{step}:before" for step in POINTS[request]]
    after = [f"{request}/{step}:after" for step in POINTS[request]]
    return [
        *(p for p in before if p not in RARE),
        *slowly(*(p for p in before if p in RARE), *after),
    ]


@pytest.mark.parametrize("point", moments("start"))
def test_start(frail: Sublet, point: str) -> None:
    with_fault(frail, point, "run", "-d", "--name", "victim", "small", *COMMAND)
    found = settled(frail)
    assert found in ({}, {"victim": "running"})
    if found:
        assert frail.ok("exec", "victim", "echo", "here") == "here"
        frail.ok("rm", "-f", "victim")
    assert frail.ok("run", "--rm", "--name", "victim", "small", "echo", "works") == "works"


@pytest.mark.parametrize("point", moments("end"))
def test_end(frail: Sublet, point: str) -> None:
    frail.ok("run", "-d", "--name", "victim", "small", *COMMAND)
    eventually(lambda: frail.ok("logs", "victim") == "up", "its trap is set")
    with_fault(frail, point, "stop", "victim")
    assert settled(frail) == {"victim": "stopped"}
    assert frail.json("inspect", "victim")["exit_code"] == 7
    frail.ok("rm", "victim")


@pytest.mark.parametrize("point", moments("remove"))
def test_removal(frail: Sublet, point: str) -> None:
    frail.ok("run", "-d", "--name", "victim", "small", *COMMAND)
    frail.ok("stop", "victim")
    with_fault(frail, point, "rm", "victim")
    begun = point != "remove/row:before"
    assert settled(frail) == ({} if begun else {"victim": "stopped"})


def test_every_step_is_met(frail: Sublet) -> None:
    """The list above is what a start, an end and a removal go through: no step is missing."""
    frail.ok("daemon", "--stop")
    traced = replace(frail, extra={"SUBLET_TRACE": "1"})
    traced.ok("run", "-d", "--name", "victim", "small", *COMMAND)
    traced.ok("stop", "victim")
    traced.ok("rm", "victim")
    frail.ok("daemon", "--stop")
    lines = (frail.run_dir / "trace.jsonl").read_text().splitlines()
    met: dict[str, set[str]] = {}
    for line in filter(lambda line: line["request"] in POINTS, map(json.loads, lines)):
        met.setdefault(line["request"], set()).update(step["name"] for step in line["steps"])
    assert met == {request: set(steps) for request, steps in POINTS.items()}
