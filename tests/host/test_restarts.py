"""Restart policies, also across the death of the daemon and of the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from typing import Any

import pytest
from conftest import BASE, Sublet, eventually


def row(sublet: Sublet, name: str) -> dict[str, Any]:
    found = sublet.json("inspect", name)
    assert isinstance(found, dict)
    return found


def restarts(sublet: Sublet, name: str) -> int:
    return int(row(sublet, name)["restarts"])


def test_a_crash_loop_goes_on_and_harms_nobody(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "loop", "--restart", "always", BASE, "sh", "-c", "exit 3")
    eventually(lambda: restarts(sublet, "loop") >= 3, "three restarts")
    assert sublet.ok("run", "--rm", BASE, "echo", "other") == "other"
    found = row(sublet, "loop")
    assert found["restart"] == "always"
    sublet.ok("stop", "loop")
    count = restarts(sublet, "loop")
    found = row(sublet, "loop")
    assert (found["state"], found["exit_code"]) == ("stopped", 3)
    sublet.ok("run", "--rm", BASE, "sleep", "1")  # longer than any pause so far
    assert restarts(sublet, "loop") == count
    sublet.ok("start", "loop")
    eventually(lambda: 1 <= restarts(sublet, "loop") < count + 2, "it counts anew")
    sublet.ok("rm", "-f", "loop")
    assert sublet.json("ps", "-a", "--json") == []


def test_so_many_times_on_failure(sublet: Sublet) -> None:
    script = "echo run >> /runs; exit 3"
    flags = ("--name", "thrice", "--restart", "on-failure:2")
    sublet.ok("run", "-d", *flags, BASE, "sh", "-c", script)
    eventually(
        lambda: (restarts(sublet, "thrice"), row(sublet, "thrice")["state"]) == (2, "stopped"),
        "two restarts",
    )
    assert row(sublet, "thrice")["exit_code"] == 3
    sublet.ok("run", "-d", "--name", "well", "--restart", "on-failure", BASE, "true")
    assert sublet.ok("wait", "well") == "0"
    assert restarts(sublet, "well") == 0


def test_what_is_killed_by_hand_stays_down(sublet: Sublet) -> None:
    flags = ("--restart", "unless-stopped")
    for name in ("killed", "stopped", "fallen"):
        sublet.ok("run", "-d", "--name", name, *flags, BASE, "sleep", "600")
    sublet.ok("kill", "killed")
    sublet.ok("stop", "-t", "0", "stopped")
    os.kill(row(sublet, "fallen")["pid"], signal.SIGKILL)
    eventually(
        lambda: (restarts(sublet, "fallen"), row(sublet, "fallen")["state"]) == (1, "running"),
        "up again",
    )
    for name in ("killed", "stopped"):
        assert (row(sublet, name)["state"], restarts(sublet, name)) == ("stopped", 0)


def start_all(own: Sublet) -> None:
    """One running instance for each policy, and one that was stopped by hand."""
    for policy in ("no", "always", "unless-stopped", "on-failure"):
        flags = ("--name", policy, "--restart", policy)
        own.ok("run", "-d", *flags, BASE, "sleep", "600")
        own.ok("run", "-d", "--name", f"{policy}-stopped", *flags[2:], BASE, "sleep", "600")
        own.ok("stop", "-t", "0", f"{policy}-stopped")


def up(own: Sublet) -> set[str]:
    return {each["name"] for each in own.json("ps", "--json") if each["state"] == "running"}


BACK = {"always", "always-stopped", "unless-stopped", "on-failure"}


def test_after_the_death_of_the_daemon(own: Sublet) -> None:
    start_all(own)
    before = {name: row(own, name)["pid"] for name in ("no", "always")}
    own.ok("run", "-d", "--name", "looping", "--restart", "always", BASE, "false")
    own.kill_daemon()
    eventually(lambda: up(own) - {"looping"} == BACK | {"no"}, "as they were, and always")
    assert {name: row(own, name)["pid"] for name in ("no", "always")} == before
    count = restarts(own, "looping")
    eventually(lambda: restarts(own, "looping") > count, "the loop goes on")


def test_after_the_death_of_the_host(own: Sublet) -> None:
    start_all(own)
    reboot(own)
    eventually(lambda: up(own) == BACK, "what is to be up")
    assert row(own, "no")["exit_code"] == 137
    assert own.ok("exec", "always", "echo", "well") == "well"


@pytest.mark.parametrize("point", ["namespaces:after", "start:before", "start:after"])
def test_a_daemon_that_dies_in_a_restart(own: Sublet, point: str) -> None:
    """The next daemon goes on, whatever the restart had made: nothing is lost or left."""
    own.ok("daemon", "--stop")
    own.extra["SUBLET_FAULT"] = f"restart/{point}"
    flags = ("-d", "--name", "looping", "--restart", "always")
    started = own("run", *flags, BASE, "sh", "-c", "exit 3")
    assert started.code == 0 or "The daemon went away" in started.err, started
    eventually(lambda: not daemon_runs(own), "the daemon has killed itself")
    del own.extra["SUBLET_FAULT"]
    count = restarts(own, "looping")
    eventually(lambda: restarts(own, "looping") > count, "the loop goes on")


def daemon_runs(own: Sublet) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(own.run_dir / "sublet.sock")) == 0


def reboot(own: Sublet) -> None:
    """What a host's death leaves: no process, no mount, no runtime directory."""
    query = "SELECT id, supervisor, pid FROM instances"
    rows = sqlite3.connect(own.root / "sublet.db").execute(query).fetchall()
    own.kill_daemon()
    pids = [pid for row in rows for pid in row[1:] if pid]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "all are dead")
    with open("/proc/self/mountinfo") as file:
        points = [line.split(" ")[4] for line in file]
    for point in reversed(points):
        if any(text in point for text in (str(own.run_dir), *(row[0] for row in rows))):
            subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(own.run_dir)
