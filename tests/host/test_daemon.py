"""The daemon: a crash at any moment loses nothing and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually


def test_a_crash_loses_nothing(own: Sublet) -> None:
    script = "echo begun; trap 'exit 6' TERM; while :; do sleep 0.1; done"
    instance = own.ok(
        "run", "-d", "--name", "kept", "-p", "127.0.0.1:0:80", BASE, "sh", "-c", script
    )
    eventually(lambda: "begun" in own.ok("logs", "kept"), "output")
    own.ok("run", "-d", "--name", "dies", BASE, "sh", "-c", "sleep 1; exit 3")
    before = own.json("inspect", "kept")
    pid = own.daemon_pid()
    own.kill_daemon()
    time.sleep(1.2)  # "dies" must end while nobody looks
    after = own.json("inspect", "kept")
    assert own.daemon_pid() != pid
    assert after["pid"] == before["pid"]
    assert after["state"] == "running"
    assert own.ok("logs", "kept") == "begun"
    assert own.ok("exec", "kept", "echo", "still here") == "still here"
    assert own.ok("wait", "dies") == "3"
    own.ok("stop", "kept")
    assert own.ok("wait", instance) == "6"
    own.ok("rm", "kept", "dies")
    assert own.json("ps", "-a", "--json") == []


def test_an_orderly_stop_leaves_instances_running(own: Sublet) -> None:
    own.ok("run", "-d", "--name", "kept", BASE, "sleep", "100")
    pid = own.json("inspect", "kept")["pid"]
    own.ok("daemon", "--stop")
    assert own.json("inspect", "kept")["pid"] == pid


def test_forwarders_that_ended_with_the_daemon_come_back(own: Sublet) -> None:
    """As when systemd ends a unit that the daemon is in."""
    instance = own.ok("run", "-d", "--name", "kept", "-p", "127.0.0.1:0:80", BASE, "sleep", "100")
    port = own.json("inspect", "kept")["ports"][0]["host_port"]

    def forwarders() -> list[int]:
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    (directory / "cmdline")
                    .read_bytes()
                    .startswith(f"socat\0TCP4-LISTEN:{port},".encode())
                ):
                    found.append(int(directory.name))
        return found

    own.kill_daemon()
    [forwarder] = forwarders()
    os.kill(forwarder, signal.SIGKILL)
    eventually(lambda: not forwarders(), "the forwarder's end")
    assert own.json("inspect", "kept")["id"] == instance
    eventually(forwarders, "a new forwarder")
    own.ok("rm", "-f", "kept")
    eventually(lambda: not forwarders(), "the forwarder's end")


def test_remove_on_exit_holds_across_a_crash(own: Sublet) -> None:
    own.ok("run", "-d", "--rm", BASE, "sh", "-c", "sleep 0.5")
    own.kill_daemon()
    time.sleep(0.7)
    eventually(lambda: own.json("ps", "-a", "--json") == [], "it is deleted")


def test_killed_at_any_moment_of_a_run(own: Sublet) -> None:
    """The daemon dies at moments spread over a start: the instance runs, or is not there."""
    for moment in [n * 0.012 for n in range(12)]:
        process = own.spawn("run", "-d", "--name", "victim", BASE, "sleep", "100")
        pid = own.daemon_pid()
        time.sleep(moment)
        import os
        import signal

        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        rows = own.json("ps", "-a", "--json")
        assert all(row["state"] == "running" for row in rows), rows
        if rows:
            assert own.ok("exec", "victim", "echo", "alive") == "alive"
        own.ok("rm", "-f", "victim")
        found = own("audit", "--json")
        assert json.loads(found.out) == []


def test_killed_at_any_moment_of_a_removal(own: Sublet) -> None:
    import os
    import signal

    for moment in [n * 0.012 for n in range(6)]:
        own.ok("run", "-d", "--name", "victim", BASE, "sleep", "100")
        pid = own.daemon_pid()
        process = own.spawn("rm", "-f", "victim")
        time.sleep(moment + 0.05)
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        rows = own.json("ps", "-a", "--json")
        assert all(row["state"] in ("running", "stopped") for row in rows)
        own.ok("rm", "-f", "victim")
        assert json.loads(own("audit", "--json").out) == []


def test_two_daemons_side_by_side(own: Sublet, shared: Sublet) -> None:
    own.ok("run", "-d", "--name", "same", BASE, "sleep", "60")
    shared.ok("run", "-d", "--name", "same", BASE, "sleep", "60")
    mine, other = own.json("inspect", "same"), shared.json("inspect", "same")
    assert mine["address"].rsplit(".", 2)[0] != other["address"].rsplit(".", 2)[0]
    assert own("audit").code == shared("audit").code == 0
    shared.ok("rm", "-f", "same")


def test_a_second_daemon_on_the_same_directories_is_refused(own: Sublet) -> None:
    own.daemon_pid()
    outcome = own("daemon")
    assert outcome.code == 125 or outcome.code == 1
    assert "Another daemon" in outcome.err


@pytest.mark.parametrize("what", ["directory", "cgroup", "link"])
def test_audit_finds_and_fixes(own: Sublet, what: str) -> None:
    import subprocess

    own.ok("run", "--rm", BASE, "true")
    stranger = secrets.token_hex(6)
    if what == "directory":
        (own.root / "instances" / stranger).mkdir()
    elif what == "cgroup":
        from sublet.drivers.cgroup import Cgroups

        groups = Cgroups(_identity(own))
        groups.trees[0].mount.joinpath(groups.parent, stranger).mkdir()
    else:
        subprocess.run(
            ["ip", "link", "add", f"v{stranger}", "type", "veth", "peer", "name", f"p{stranger}"],
            check=True,
        )
        subprocess.run(["ip", "link", "set", f"v{stranger}", "master", _bridge(own)], check=True)
    found = own("audit", "--json")
    assert found.code == 1
    rows = json.loads(found.out)
    assert [row["owner"] for row in rows] == [stranger]
    assert set(rows[0]) == {"kind", "name", "owner"}
    assert own("audit", "--fix").code == 0
    assert own("audit", "--json").out.strip() == "[]"


def _identity(own: Sublet) -> str:
    from sublet.domain.config import Config

    return Config(root=own.root, run=own.run_dir).identity


def _bridge(own: Sublet) -> str:
    from sublet.drivers.network.identity import Identity

    return Identity.of(own.run_dir).bridge
