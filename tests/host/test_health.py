"""Health checks of running instances."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from clilab import context
from conftest import BASE, Sublet, eventually

FILE = ("--health-cmd", "test -f /ok || { echo not yet; exit 1; }")


def health(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["health"])


def test_a_check_tells_how_an_instance_is(sublet: Sublet) -> None:
    flags = (*FILE, "--health-interval", "0.2s", "--health-retries", "2")
    sublet.ok("run", "-d", "--name", "checked", *flags, BASE, "sleep", "600")
    eventually(lambda: health(sublet, "checked") == "unhealthy", "unhealthy")
    found = sublet.json("inspect", "checked")
    assert found["health_streak"] >= 2
    assert {each["output"] for each in found["health_results"]} == {"not yet\n"}
    assert {each["exit_code"] for each in found["health_results"]} == {1}
    sublet.ok("exec", "checked", "touch", "/ok")
    eventually(lambda: health(sublet, "checked") == "healthy", "healthy")
    eventually(lambda: len(sublet.json("inspect", "checked")["health_results"]) == 5, "five kept")
    assert "running (healthy)" in sublet.ok("ps")


def test_changes_are_events(sublet: Sublet) -> None:
    flags = ("--health-cmd", "true", "--health-interval", "0.1s")
    sublet.ok("run", "-d", "--wait", "--name", "told", *flags, BASE, "sleep", "600")
    assert health(sublet, "told") == "healthy"
    instance = sublet.json("inspect", "told")["id"]
    rows = sqlite3.connect(sublet.root / "sublet.db").execute(
        "SELECT detail FROM events WHERE instance = ? AND type = 'instance.health'", (instance,)
    )
    assert [json.loads(row[0])["health"] for row in rows] == ["healthy"]


def test_a_check_that_hangs_is_killed(sublet: Sublet) -> None:
    flags = ("--health-cmd", "exec sleep 4711", "--health-interval", "0.1s")
    flags += ("--health-timeout", "0.3s", "--health-retries", "1")
    sublet.ok("run", "-d", "--name", "hanging", *flags, BASE, "sleep", "600")
    eventually(lambda: health(sublet, "hanging") == "unhealthy", "unhealthy")
    last = sublet.json("inspect", "hanging")["health_results"][-1]
    assert last["exit_code"] == -1
    assert "killed" in last["output"]
    sublet.ok("pause", "hanging")
    running = sublet.json("inspect", "hanging")["health_results"][-1]["end"]
    sublet.ok("unpause", "hanging")
    eventually(
        lambda: sublet.json("inspect", "hanging")["health_results"][-1]["end"] > running,
        "checked again",
    )
    script = "grep -l 4711 /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    eventually(
        lambda: int(sublet.ok("exec", "hanging", "sh", "-c", script)) <= 3, "grep, sh, one check"
    )


def test_output_is_bounded(sublet: Sublet) -> None:
    flags = ("--health-cmd", "head -c 100000 /dev/zero | tr '\\0' x", "--health-interval", "0.1s")
    sublet.ok("run", "-d", "--wait", "--name", "loud", *flags, BASE, "sleep", "600")
    assert sublet.json("inspect", "loud")["health_results"][0]["output"] == "x" * 4096


def test_a_start_period_forgives(sublet: Sublet) -> None:
    flags = (*FILE, "--health-interval", "0.1s", "--health-retries", "1")
    flags += ("--health-start-period", "1h")
    sublet.ok("run", "-d", "--name", "slow", *flags, BASE, "sleep", "600")
    eventually(lambda: len(sublet.json("inspect", "slow")["health_results"]) == 5, "checked")
    assert health(sublet, "slow") == "starting"
    sublet.ok("exec", "slow", "touch", "/ok")
    eventually(lambda: health(sublet, "slow") == "healthy", "healthy")
    sublet.ok("exec", "slow", "rm", "/ok")
    eventually(lambda: health(sublet, "slow") == "unhealthy", "the start period is over")


def test_the_check_of_an_image(sublet: Sublet, tmp_path: Path) -> None:
    text = f"FROM {BASE}\nHEALTHCHECK --interval=1s CMD echo $WHO; id -un\nENV WHO=image\n"
    sublet.ok("build", "-t", "checked", context(tmp_path / "context", text), timeout=300)
    flags = ("--user", "daemon", "-e", "WHO=tenant")
    sublet.ok("run", "-d", "--wait", "--name", "of-image", *flags, "checked", "sleep", "600")
    results = sublet.json("inspect", "of-image")["health_results"]
    assert results[0]["output"] == "tenant\ndaemon\n"
    sublet.ok(
        "run", "-d", "--wait", "--name", "without", "--no-healthcheck", "checked", "sleep", "9"
    )
    assert health(sublet, "without") == "none"
    sublet.ok("rm", "-f", "of-image", "without")
    sublet.ok("rmi", "checked")


def test_a_new_daemon_goes_on_checking(own: Sublet) -> None:
    flags = (*FILE, "--health-interval", "0.2s", "--health-retries", "1")
    own.ok("run", "-d", "--name", "kept", *flags, BASE, "sleep", "600")
    eventually(lambda: health(own, "kept") == "unhealthy", "unhealthy")
    own.kill_daemon()
    assert health(own, "kept") == "unhealthy"
    own.ok("exec", "kept", "touch", "/ok")
    eventually(lambda: health(own, "kept") == "healthy", "healthy")
    own.ok("stop", "-t", "0", "kept")
    own.ok("start", "kept")
    assert health(own, "kept") in ("starting", "healthy")
