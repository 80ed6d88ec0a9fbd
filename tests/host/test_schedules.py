"""Schedules at work: real containers at real times, across deaths of the daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from conftest import BASE, Sublet, eventually
from marketlab import IMAGE, small_host

from sublet.domain.errors import NoSuchImage
from sublet.domain.schedules import Missed, Outcome, Run
from sublet.drivers.store.database import Database
from sublet.drivers.store.schedules import ScheduleStore
from sublet.sdk import Client

LOOP = ["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"]
NEVER = ["--cron", "0 0 1 1 *"]


@pytest.fixture
def timed(sublet: Sublet) -> Iterator[Sublet]:
    """The command line; afterwards no schedule is left."""
    yield sublet
    names = [row["name"] for row in sublet.json("schedule", "ls", "--json")]
    if names:
        sublet.ok("schedule", "rm", "-f", *names)


def history(sublet: Sublet, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sublet.json("schedule", "show", name, "--json")["history"]
    return found


def over(sublet: Sublet, name: str, outcome: str) -> dict[str, Any]:
    """The newest run with that outcome, once there is one."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [run for run in history(sublet, name) if run["outcome"] == outcome]
        return bool(found)

    eventually(there, f"a run of {name} that is {outcome}", 90)
    return found[0]


def test_an_image_runs_at_its_time(timed: Sublet) -> None:
    args = ["--cron", "every 1s", "--tz", "Europe/Berlin", "--keep", "1", "-e", "WORD=hello"]
    made = timed.ok(
        "schedule", "create", "tick", *args, "--", BASE, "sh", "-c", "echo $WORD; exit 3"
    )
    assert made == "tick"
    eventually(lambda: len(history(timed, "tick")) >= 3, "three runs")
    timed.ok("schedule", "pause", "tick")
    eventually(
        lambda: all(run["outcome"] != "running" for run in history(timed, "tick")), "none goes on"
    )
    run = over(timed, "tick", "exited")
    assert run["exit_code"] == 3
    assert 0 <= run["duration"] < 30
    assert timed.ok("logs", run["instance_name"]) == "hello"
    eventually(lambda: len(timed.ok("ps", "-aq").split()) == 1, "one instance is kept")
    (row,) = timed.json("schedule", "ls", "--json")
    assert {"name", "cron", "timezone", "next", "last", "enabled"} <= set(row)
    assert (row["enabled"], row["next"], row["timezone"]) == (False, None, "Europe/Berlin")
    assert "paused" in timed.ok("schedule", "ls")
    count = len(history(timed, "tick"))
    timed.ok("schedule", "resume", "tick")
    eventually(lambda: len(history(timed, "tick")) > count, "it runs again")
    shown = timed.ok("schedule", "show", "tick")
    assert "hello" not in shown
    assert "exited" in shown
    eventually(lambda: timed("schedule", "rm", "tick").code == 0, "it is removed between two runs")
    eventually(lambda: timed.ok("ps", "-aq") == "", "its last instance goes with it")


def test_a_run_ends_when_its_time_is_up(timed: Sublet) -> None:
    timed.ok("schedule", "create", "long", *NEVER, "--for", "10s", "--", BASE, *LOOP)
    timed.ok("schedule", "run", "long")
    again = timed("schedule", "run", "long")
    assert again.code == 1
    assert "goes on" in again.err
    refused = timed("schedule", "rm", "long")
    assert refused.code == 1
    assert "rm -f" in refused.err
    run = over(timed, "long", "stopped")
    assert run["exit_code"] == 5, "it was asked to end"
    assert 10 <= run["duration"] < 40


def test_a_run_waits_for_the_one_before(timed: Sublet) -> None:
    flags = ["--for", "6s", "--overlap", "queue"]
    timed.ok("schedule", "create", "next", *NEVER, *flags, "--", BASE, *LOOP)
    for _ in range(2):
        timed.ok("schedule", "run", "next")
    outcomes = [run["outcome"] for run in history(timed, "next")]
    assert outcomes == ["queued", "running"]
    eventually(
        lambda: [run["outcome"] for run in history(timed, "next")] == ["stopped", "stopped"],
        "both have had their time",
        90,
    )
    second, first = history(timed, "next")
    assert second["began"] >= first["ended"]


def test_a_run_takes_the_place_of_the_one_before(timed: Sublet) -> None:
    timed.ok("schedule", "create", "new", *NEVER, "--overlap", "replace", "--", BASE, *LOOP)
    timed.ok("schedule", "run", "new")
    eventually(lambda: "up" in timed("logs", *timed.ok("ps", "-q").split()).out, "it runs")
    timed.ok("schedule", "run", "new")
    run = over(timed, "new", "replaced")
    assert run["exit_code"] == 5
    assert over(timed, "new", "running")["id"] > run["id"]


def test_an_instance_is_started_and_stopped(timed: Sublet) -> None:
    timed.ok("create", "--name", "box", BASE, *LOOP)
    timed.ok("schedule", "create", "work", *NEVER, "--for", "6s", "--start", "box")
    timed.ok("schedule", "run", "work")
    eventually(lambda: timed.json("inspect", "box")["state"] == "running", "it is started")
    over(timed, "work", "stopped")
    assert timed.json("inspect", "box")["state"] == "stopped"
    timed.ok("start", "box")
    timed.ok("schedule", "run", "work")
    assert over(timed, "work", "skipped")["reason"] == "box ran already"
    assert timed.json("inspect", "box")["state"] == "running", "who started it may stop it"
    timed.ok("rm", "-f", "box")
    timed.ok("schedule", "run", "work")
    assert "no instance" in over(timed, "work", "failed")["reason"]


def test_runs_and_rules_outlive_the_daemon(own: Sublet) -> None:
    own.ok("schedule", "create", "long", *NEVER, "--for", "10s", "--", BASE, *LOOP)
    own.ok("schedule", "create", "short", *NEVER, "--", BASE, "sh", "-c", "sleep 5; exit 4")
    own.ok("schedule", "create", "tick", "--cron", "every 1s", "--", BASE, "true")
    for name in ("long", "short"):
        own.ok("schedule", "run", name)
    eventually(lambda: len(own.ok("ps", "-q").split()) >= 2, "both run")
    ran = {run["due"] for run in history(own, "tick")}
    own.kill_daemon()
    run = over(own, "short", "exited")
    assert run["exit_code"] == 4
    run = over(own, "long", "stopped")
    assert run["exit_code"] == 5
    assert run["duration"] >= 10
    eventually(lambda: len(history(own, "tick")) > len(ran), "the other one goes on, too")
    dues = [run["due"] for run in history(own, "tick")]
    assert len(dues) == len(set(dues)), "nothing ran twice"
    own.ok("schedule", "rm", "-f", "long", "short", "tick")


def test_a_run_that_no_daemon_came_to_start() -> None:
    """Its row is there, as if the daemon had been killed between that and its instance."""
    with small_host() as host:
        for missed in Missed:
            command = ("--missed", missed, "--", IMAGE, "sh", "-c", "exit 4")
            host.ok("schedule", "create", missed, *NEVER, *command)
        host.kill_daemon()
        began = time.time() - 3600
        with closing(Database(host.root / "sublet.db")) as database:
            store = ScheduleStore(database)
            for rule in store.every():
                name = f"{rule.name}-9"
                store.update(rule, [Run(0, rule.id, began, Outcome.RUNNING, began, name=name)])
        run = over(host, "run", "exited")
        assert run["exit_code"] == 4
        assert run["duration"] < 3600
        assert "before its start" in over(host, "skip", "missed")["reason"]
        host.ok("schedule", "rm", "run", "skip")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cron", "99 * * * *", "--", BASE], "no time to run at"),
        (["--cron", "at 2020-01-01T00:00", "--", BASE], "is past"),
        (["--cron", "@daily", "--tz", "Mars", "--", BASE], "no time zone"),
        (["--cron", "@daily"], "runs an image or starts"),
        (["--", BASE], "--cron"),
        (["--cron", "@daily", "--start", "nobody"], "no instance"),
        (["--cron", "@daily", "--start", "x", "--", BASE], "exclude"),
        (["--cron", "@daily", "--restart", "always", "--", BASE], "no --restart"),
        (["--cron", "@daily", "--for", "soon", "--", BASE], "not a duration"),
    ],
)
def test_what_is_no_schedule(timed: Sublet, args: list[str], said: str) -> None:
    outcome = timed("schedule", "create", "odd", *args)
    assert outcome.code != 0
    assert said in outcome.err
    assert timed.json("schedule", "ls", "--json") == []


def test_from_python(timed: Sublet) -> None:
    client = Client(str(timed.run_dir / "sublet.sock"))
    with pytest.raises(NoSuchImage):
        client.create_schedule("x", "@daily", {"image": "sha256:" + "0" * 64})
    made = client.create_schedule("x", "at 2099-01-01T00:00", {"image": BASE, "command": ["true"]})
    assert made["next"] == "2099-01-01T00:00:00.000Z"
    run = client.run_schedule("x")
    assert run["outcome"] == "running"
    eventually(lambda: history(timed, "x")[0]["exit_code"] == 0, "it ran")
    client.remove_schedule("x")
    assert client.schedules() == []
