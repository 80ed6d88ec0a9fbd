"""`sublet compare`: the same image as containers and as VMs; nothing stays, however it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from clilab import assert_explained, assert_nothing_left, end, seen
from conftest import BASE, Sublet, eventually

IDLE = ("--", "sleep", "infinity")


@pytest.mark.timeout(240)
def test_both_are_measured(sublet: Sublet, tmp_path: Path) -> None:
    picture = tmp_path / "ten.png"
    argv = ("compare", BASE, "--size", "1x0.25", "--count", "3", "--out", str(picture))
    script = ("sh", "-c", "[ $GIVEN = there ] && exec sleep infinity")
    outcome = sublet(*argv, "-e", "GIVEN=there", "--json", "--", *script, timeout=200)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["size"], found["count"], found["command"]) == ("1x0.25", 3, list(script))
    container, vm = found["container"], found["vm"]
    for side in (container, vm):
        assert len(side["starts_ms"]) == 3
        assert side["memory"]["total"] >= 3 * min(side["memory"]["each"], 1)
        holds = side["holds"]
        assert holds["count"] == min(holds["by"].values())
        assert holds["by"]["memory_sold"] == vm["holds"]["by"]["memory_sold"]
    # an operating system of its own is what a VM costs more
    assert container["memory"]["each"] < 4 << 20 < vm["memory"]["each"] < 128 << 20
    assert min(container["starts_ms"]) < max(vm["starts_ms"])
    assert min(vm["starts_ms"]) < vm["cold_start_ms"]
    for side in (container, vm):
        assert min(side["starts_ms"]) <= side["start_ms"] <= max(side["starts_ms"])
    assert vm["memory"]["shared"] > 16 << 20  # the template's memory, once
    assert container["cold_start_ms"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert_nothing_left(sublet)


def test_a_command_that_ends_is_no_comparison(sublet: Sublet) -> None:
    outcome = sublet("compare", BASE, "--count", "2", "--", "true")
    assert (outcome.code, outcome.out) == (1, "")
    explained = "\n".join(line for line in outcome.err.splitlines() if "ontainer" not in line)
    assert_explained(explained)
    assert "sleep infinity" in outcome.err
    assert_nothing_left(sublet)


@pytest.mark.parametrize(
    "argv",
    [
        ("--out", "picture.pdf"),
        ("--out", "/nowhere/picture.png"),
        ("--count", "0"),
        ("--count", "1000"),
        ("--size", "large"),
    ],
)
def test_what_it_refuses(sublet: Sublet, argv: tuple[str, ...]) -> None:
    outcome = sublet("compare", BASE, *argv, *IDLE)
    assert (outcome.code, outcome.out) == (1, "")
    assert_explained(outcome.err)
    assert_nothing_left(sublet)


def test_what_does_not_fit(sublet: Sublet) -> None:
    outcome = sublet("compare", BASE, "--size", "1x100000", "--count", "2", *IDLE)
    assert (outcome.code, outcome.out) == (1, "")
    assert "memory free" in outcome.err
    assert_nothing_left(sublet)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "starting container 2"),
        (signal.SIGTERM, "measuring"),
        (signal.SIGINT, "booting VM 1"),
        pytest.param(signal.SIGTERM, "making a template", marks=pytest.mark.slow),
    ],
)
def test_interrupted_it_removes_what_it_started(
    sublet: Sublet, number: signal.Signals, moment: str
) -> None:
    process = sublet.spawn("compare", BASE, "--size", "1x0.25", "--count", "2", *IDLE)
    seen(process, moment)
    code, out, _ = end(process, number)
    assert (code, out) == (130, "")
    eventually(lambda: sublet.json("ps", "-a", "--json") == [], "a start under way is taken back")
    assert_nothing_left(sublet)


def test_killed_its_instances_end_by_themselves(sublet: Sublet) -> None:
    process = sublet.spawn("compare", BASE, "--count", "8", *IDLE)
    seen(process, "starting container 3")
    end(process, signal.SIGKILL)
    left: list[dict[str, Any]] = []

    def settled() -> bool:  # the start that was under way is taken back
        left[:] = sublet.json("ps", "-a", "--json")
        return bool(left) and {row["state"] for row in left} == {"running"}

    eventually(settled, "what has started runs")
    for row in left:
        assert sublet.json("inspect", row["id"])["ttl"] == 3600
