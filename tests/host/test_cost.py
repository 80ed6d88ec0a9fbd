"""The bill of real instances, under a daemon that is killed with SIGKILL."""

from __future__ import annotations

import csv
import io
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Sublet, ended, eventually

SLACK = 1.0
"""Seconds by which a busy machine may be late."""


@pytest.fixture(scope="module")
def billed(small_file: Path) -> Iterator[Sublet]:
    """A daemon that is killed again and again."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    yield sublet
    sublet.clean()
    sublet.close()


def line(sublet: Sublet, name: str) -> dict[str, Any]:
    """What an instance is charged, in the one line that it has."""
    (found,) = [row for row in sublet.json("cost", "--json") if row["name"] == name]
    assert isinstance(found, dict)
    return found


def test_a_bill_of_what_ran_and_runs(billed: Sublet) -> None:
    days = {today()}
    billed.ok("run", "--rm", "--name", "gone", "-l", "team=x", "small", "sleep", "0.5")
    billed.ok("run", "-d", "--name", "here", "--cpus", "2", "small", "sleep", "600")
    gone, here = line(billed, "gone"), line(billed, "here")
    assert (gone["market"], gone["seconds"]) == ("on-demand", 60.0)
    assert 0 < gone["used"] < 30
    assert gone["amount"] == pytest.approx(60 / 3600 * (0.0304 + 0.5 * 0.005))
    assert here["amount"] == pytest.approx(60 / 3600 * (2 * 0.0304 + 0.5 * 0.005))
    before = line(billed, "here")["used"]
    billed.ok("pause", "here")
    eventually(lambda: line(billed, "here")["used"] > before, "what is paused is charged")
    billed.ok("update", "--cpus", "4", "here")
    assert line(billed, "here")["amount"] > here["amount"], "a new size costs more at once"
    billed.ok("rm", "-f", "here")
    assert [row["name"] for row in billed.json("cost", "here", "--json")] == ["here"]
    assert [row["name"] for row in billed.json("cost", "--json", "--instance", "gone")] == ["gone"]
    assert "Nothing has been charged to 'her'" in billed("cost", "her").err
    text = billed.ok("cost")
    assert (
        text.splitlines()[0].split()
        == "INSTANCE MARKET CHARGED COST ON DEMAND AROUND THE CLOCK".split()
    )
    assert "total" in text.splitlines()[-2]
    assert text.splitlines()[-1].startswith("Saved $")
    by_label = {row["label"]: row for row in billed.json("cost", "--json", "--by", "label=team")}
    assert by_label["x"]["seconds"] == 60.0
    (day,) = billed.json("cost", "--json", "--by", "day", "--since", "12h", "--tz", "UTC")[-1:]
    assert day["day"] in days | {today()}
    rows = list(csv.DictReader(io.StringIO(billed.ok("cost", "--csv"))))
    assert [row["name"] for row in rows if row["name"] in ("gone", "here")] == ["gone", "here"]
    for kind in ("bill.svg", "bill.png"):
        picture = billed.home / kind
        billed.ok("cost", "--out", str(picture))
        assert picture.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
    assert "colour" in billed("cost", "--by", "colour").err
    assert "time zone" in billed("cost", "--tz", "Mars/Base").err


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def test_what_ends_while_no_daemon_is_there(billed: Sublet) -> None:
    """It is charged until it ended, not until somebody noticed."""
    script = "while ! test -e /stop; do sleep 0.05; done"
    before = time.monotonic()
    billed.ok("run", "-d", "--name", "falls", "small", "sh", "-c", script)
    begun = time.monotonic()
    pid = billed.json("inspect", "falls")["pid"]
    billed.ok("exec", "falls", "sleep", "1.5")
    billed.kill_daemon()
    killed = time.monotonic()
    gone = end_unseen(pid)
    found = line(billed, "falls")
    assert killed - begun - SLACK < found["used"] < gone - before + SLACK
    assert line(billed, "falls")["used"] == found["used"], "it is closed"
    assert found["starts"] == 1
    billed.ok("rm", "falls")


def end_unseen(pid: int) -> float:
    """End the instance's process while nobody watches, and let time pass; when it was gone."""
    os.kill(pid, signal.SIGTERM)  # from outside: the first process of a pid namespace heeds it
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: ended(pid), "the process is gone")
    gone = time.monotonic()
    time.sleep(3 * SLACK)
    return gone


def test_what_goes_on_under_the_next_daemon(billed: Sublet) -> None:
    before = time.monotonic()
    billed.ok("run", "-d", "--name", "lives", "small", "sleep", "600")
    begun = time.monotonic()
    for _ in range(2):
        billed.kill_daemon()
        time.sleep(SLACK)
    asked = time.monotonic()
    found = line(billed, "lives")
    assert asked - begun - SLACK < found["used"] < time.monotonic() - before + SLACK
    assert found["starts"] == 1
    billed.ok("stop", "-t", "0", "lives")
    used = line(billed, "lives")["used"]
    billed.ok("start", "lives")
    assert line(billed, "lives")["seconds"] == 120.0
    billed.ok("rm", "-f", "lives")
    assert line(billed, "lives")["used"] >= used


@pytest.mark.parametrize(
    "point",
    ["start/start:after", "end/row:before", "end/row:after", "end/teardown:after"],
)
def test_a_daemon_that_dies_in_the_middle(billed: Sublet, point: str) -> None:
    """One start is charged once, and only if it came up."""
    name = point.replace("/", "-").replace(":", "-")
    frail = replace(billed, extra={"SUBLET_FAULT": point})
    argv = ("run", "-d", "--name", name, "small", "sleep", "600")
    if point.startswith("end"):
        billed.ok(*argv)
        billed.ok("daemon", "--stop")
        assert frail("stop", "-t", "0", name).code
    else:
        billed.ok("daemon", "--stop")
        assert frail(*argv).code
    eventually(lambda: billed("audit").code == 0, "the audit is clean")
    up = [row["name"] for row in billed.json("ps", "--json")]
    found = [row for row in billed.json("cost", "--json") if row["name"] == name]
    if point.startswith("start"):
        assert (name in up) == bool(found)
    else:
        (closed,) = found
        assert closed["starts"] == 1
        time.sleep(0.2)
        assert line(billed, name)["used"] == closed["used"], "it is closed"
    billed.ok("rm", "-f", name)


def test_what_if_and_the_users_own_prices(billed: Sublet) -> None:
    argv = ("cost", "what-if", "--size", "2x8", "--hours", "8", "--days", "22")
    rows = billed.json(*argv, "--spot", "--json")
    assert [row["scenario"] for row in rows] == [
        "around the clock on demand",
        "only when used",
        "spot around the clock",
        "spot only when used",
    ]
    assert [row["hours"] for row in rows] == [730, 176, 730, 176]
    assert all({"price", "amount", "saving"} <= row.keys() for row in rows)
    assert rows[1]["amount"] == pytest.approx(17.74, abs=0.01)
    assert "t3.large" in billed.ok(*argv, "--ec2")
    named = billed.json(*argv[:3], "large", *argv[4:], "--json")
    assert named[1]["amount"] == rows[1]["amount"]
    assert "25 hours" in billed("cost", "what-if", "--size", "2x8", "--hours", "25").err
    prices = billed.home / "prices.csv"
    billed.ok("daemon", "--stop")
    mine = replace(billed, extra={"SUBLET_REFERENCE_PRICES": str(prices)})
    assert str(prices) in mine(*argv, "--ec2").err
    prices.write_text("type,vcpus,gib,on_demand,spot_low,spot_high\nmine,64,64,x,,\n")
    assert "line 2" in mine(*argv, "--ec2").err
    prices.write_text("type,vcpus,gib,on_demand,spot_low,spot_high\nmine,64,64,2,,\n")
    assert [row["amount"] for row in mine.json(*argv, "--ec2", "--json")] == [1460, 352, None, None]
    billed.ok("daemon", "--stop")


def test_spot_is_cheaper_and_free_when_it_is_reclaimed_in_its_first_hour(billed: Sublet) -> None:
    argv = ("--spot", "--on-reclaim", "stop", "small", "sleep", "600")
    billed.ok("run", "-d", "--name", "cheap", *argv)
    found = line(billed, "cheap")
    assert found["market"] == "spot"
    factor = found["amount"] / found["on_demand_amount"]
    assert 0.2 <= factor < 1.0
    assert billed.json("market", "--json")["factor"] == pytest.approx(factor, abs=0.01)
    billed.ok("reclaim", "cheap", "--now")
    eventually(lambda: billed.json("inspect", "cheap")["state"] == "stopped", "it is reclaimed")
    free = line(billed, "cheap")
    assert (free["amount"], free["on_demand_amount"]) == (0.0, found["on_demand_amount"])
    billed.ok("run", "-d", "--name", "kept", *argv)
    billed.ok("rm", "-f", "kept")
    assert line(billed, "kept")["amount"] > 0, "its tenant has ended it"
    billed.ok("rm", "cheap")
