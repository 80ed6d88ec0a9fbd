"""Budgets of real instances: told, stopped, refused, and not brought back by anything."""

from __future__ import annotations

from conftest import BASE, Sublet, eventually

MINUTE = 60 / 3600 * (0.0304 + 0.5 * 0.005)
"""Dollars that a start of the default size costs at least."""


def state(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["state"])


def told(sublet: Sublet, name: str) -> list[str]:
    rows = sublet.json("events", "--json", "--since", "1h", "--filter", "type=budget")
    return [row["type"] for row in rows if row["detail"]["name"] == name]


def test_a_budget_ends_an_instance_for_good(own: Sublet) -> None:
    small = f"{MINUTE / 2:.6f}/month"
    refused = own("run", "--name", "poor", "--budget", small, BASE, "true")
    assert (refused.code, "does not pay for a start" in refused.err) == (125, True)
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    flags = ("--name", "poor", "--restart", "always", "--budget", "5/month")
    own.ok("run", "-d", *flags, BASE, "sh", "-c", f"{script}")
    eventually(lambda: own.ok("logs", "poor") == "up", "its trap is set")
    own.ok("update", "--budget", small, "poor")
    eventually(lambda: state(own, "poor") == "stopped", "stopped")
    assert own.json("inspect", "poor")["exit_code"] == 7, "it was asked to end"
    assert told(own, "poor") == ["budget.exhausted"]
    own.kill_daemon()
    own.ok("run", "--rm", BASE, "sleep", "1")
    assert state(own, "poor") == "stopped", "neither its policy nor a new daemon brings it back"
    refused = own("start", "poor")
    assert refused.code == 1
    assert "is used up; it renews at" in refused.err
    assert "sublet budget set poor" in refused.err
    (row,) = own.json("ps", "-a", "--json")
    assert row["budget"]["state"] == "exhausted"
    assert "(budget: 2" in own.ok("ps", "-a")
    own.ok("update", "--budget", "5/month", "poor")
    own.ok("start", "poor")
    assert state(own, "poor") == "running"
    assert [row["name"] for row in own.json("budget", "ls", "--json")] == ["poor"]
    own.ok("budget", "rm", "poor")
    assert own.json("budgets", "--json") == []
    assert own("budget", "rm", "poor").code == 1


def test_a_warning_and_the_budget_of_a_label(sublet: Sublet) -> None:
    near = f"{MINUTE * 1.1:.6f}/week"
    started = sublet("run", "-d", "--name", "near", "--budget", near, BASE, "sleep", "600")
    assert started.code == 0
    eventually(lambda: told(sublet, "near") == ["budget.warning"], "the warning")
    assert "(budget: 91%)" in sublet.ok("ps")
    assert "is used to 91%" in sublet("start", "near").err
    try:
        sublet.ok("run", "-d", "--name", "one", "-l", "team=x", BASE, "sleep", "600")
        sublet.ok("budget", "set", "label=team=x", f"{MINUTE / 2:.6f}/day")
        eventually(lambda: state(sublet, "one") == "stopped", "it is under it")
        assert state(sublet, "near") == "running"
        refused = sublet("run", "--rm", "-l", "team=x", BASE, "true")
        assert (refused.code, "label=team=x" in refused.err) == (125, True)
        sublet.ok("run", "--rm", "-l", "team=y", BASE, "true")
    finally:
        sublet.ok("budget", "rm", "-f", "label=team=x")
    assert "buys nothing" in sublet("run", "--budget", "0/day", BASE, "true").err
    assert "no budget" in sublet("run", "--budget", "much", BASE, "true").err
