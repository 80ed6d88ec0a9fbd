"""Instances that nobody uses, with windows of a few seconds."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually
from vmhost import IMAGE

from sublet.sdk import Client

RUN = ("run", "-d", "--stop-timeout", "0s")
BURN = "(while :; do :; done) & echo $! >/burner; wait; exec sleep 600"


def state(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["state"])


def busy(sublet: Sublet, name: str) -> list[str]:
    return sublet.json("inspect", name)["busy_because"] or []


def stopped(sublet: Sublet, name: str) -> None:
    eventually(lambda: state(sublet, name) == "stopped", f"{name} is stopped")


def test_who_does_nothing_is_stopped_and_starts_again(sublet: Sublet) -> None:
    health = ("--health-cmd", "true", "--health-interval", "1s", "--restart", "always")
    started = time.monotonic()
    sublet.ok(*RUN, "--name", "lazy", "--idle", "5s", *health, BASE, "sleep", "600")
    found: dict[str, Any] = sublet.json("inspect", "lazy")
    assert found["idle"]["after"] == 5
    assert found["idle"]["action"] == "stop"
    stopped(sublet, "lazy")
    assert time.monotonic() - started > 4
    assert sublet.json("inspect", "lazy")["busy_because"] is None
    sublet.ok("start", "lazy")
    assert state(sublet, "lazy") == "running"
    stopped(sublet, "lazy")
    rows = sublet.json("events", "--filter", "event=idle", "--filter", "instance=lazy", "--json")
    assert [row["detail"]["action"] for row in rows] == ["stop", "stop"]


def test_cpu_time_counts_as_use(sublet: Sublet) -> None:
    sublet.ok(*RUN, "--name", "hot", "--idle", "5s", BASE, "sh", "-c", BURN)
    eventually(lambda: any("of a CPU" in why for why in busy(sublet, "hot")), "busy")
    sublet.ok("exec", "hot", "sh", "-c", "kill $(cat /burner)")
    stopped(sublet, "hot")


def test_a_session_counts_as_use(sublet: Sublet) -> None:
    sublet.ok(*RUN, "--name", "seen", "--idle", "1h", BASE, "sleep", "600")
    session = sublet.spawn("exec", "-i", "seen", "cat", stdin=-1)
    logs = sublet.spawn("logs", "-f", "seen")
    eventually(lambda: busy(sublet, "seen") == ["somebody is attached: exec"], "attached")
    sublet.ok("update", "--idle", "2s", "seen")
    time.sleep(3)
    assert state(sublet, "seen") == "running"
    session.communicate("", timeout=30)
    stopped(sublet, "seen")
    logs.communicate(timeout=30)


def test_an_ssh_session_counts_as_use(sublet: Sublet, vm: Sublet) -> None:
    sublet.ok(*RUN, "--name", "seen", "--idle", "1h", BASE, "sleep", "600")
    attendance = Client(str(sublet.run_dir / "sublet.sock")).attend("seen")  # as `sublet ssh` does
    next(attendance)
    vm.ok(*RUN, "--name", "sshd", "--idle", "1h", IMAGE, "nc", "-l", "-p", "22", "-e", "cat")
    with socket.socket() as client:
        eventually(lambda: _connects(client, vm), "it listens")
        both = ((sublet, "seen"), (vm, "sshd"))
        for host, name in both:
            host.ok("update", "--idle", "2s", name)
        time.sleep(3)
        for host, name in both:
            eventually(
                lambda host=host, name=name: busy(host, name) == ["somebody is attached: ssh"],
                "it is known",
            )
            assert state(host, name) == "running"
    del attendance
    stopped(sublet, "seen")
    stopped(vm, "sshd")


def _connects(client: socket.socket, vm: Sublet) -> bool:
    return client.connect_ex((vm.json("inspect", "sshd")["address"], 22)) in (0, errno.EISCONN)


def test_a_keepalive_counts_as_use(sublet: Sublet) -> None:
    sublet.ok(*RUN, "--name", "kept", "--idle", "1h", BASE, "sleep", "600")
    sublet.ok("keepalive", "--for", "1h", "kept")
    sublet.ok("update", "--idle", "2s", "kept")
    assert busy(sublet, "kept")[-1].startswith("it is kept alive for")
    time.sleep(3)
    assert state(sublet, "kept") == "running"
    sublet.ok("keepalive", "kept")
    stopped(sublet, "kept")


def test_traffic_counts_as_use(sublet: Sublet) -> None:
    sublet.ok(*RUN, "--name", "web", "--idle", "6s", "-p", "0:80", BASE, "sleep", "600")
    address = sublet.json("inspect", "web")["address"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def counts() -> bool:
            for _ in range(40):
                sender.sendto(b"x" * 1000, (address, 9))
                time.sleep(0.05)
            return any("a second" in why for why in busy(sublet, "web"))

        eventually(counts, "traffic counts")
    stopped(sublet, "web")


def test_terminate_takes_it_away(sublet: Sublet) -> None:
    flags = ("--idle", "1s", "--idle-action", "terminate")
    sublet.ok(*RUN, "--name", "brief", *flags, BASE, "sleep", "600")
    eventually(lambda: not sublet.json("ps", "-a", "--json"), "gone")


def test_a_rule_is_given_and_taken(sublet: Sublet) -> None:
    sublet.ok(*RUN, "--name", "later", BASE, "sleep", "600")
    refused(sublet, "keepalive", "later", code=1, says="no rule for idleness")
    refused(sublet, "update", "--idle-action", "stop", "later", code=1, says="no rule")
    sublet.ok("update", "--idle", "1h", "later")
    assert sublet.json("inspect", "later")["idle"]["acts"]
    sublet.ok("update", "--idle", "0", "later")
    assert sublet.json("inspect", "later")["idle"] is None
    sublet.ok("update", "--idle", "1s", "later")
    stopped(sublet, "later")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--idle", "30m", "--idle-action", "hibernate"), "cannot hibernate"),
        (("--idle", "30m", "--network", "host"), "traffic"),
        (("--idle-action", "stop"), "no --idle"),
        (("--idle", "10ms"), "idle"),
        (("--idle", "30m", "--idle-action", "sleep"), ""),
    ],
)
def test_what_is_refused(sublet: Sublet, flags: tuple[str, ...], says: str) -> None:
    refused(sublet, "run", "-d", *flags, BASE, "true", says=says)


def test_a_killed_daemon_begins_the_window_again(own: Sublet) -> None:
    own.ok(*RUN, "--name", "on", "--idle", "8s", BASE, "sleep", "600")
    time.sleep(2.5)
    own.kill_daemon()
    began = time.monotonic()
    assert state(own, "on") == "running"
    stopped(own, "on")
    assert time.monotonic() - began > 7.9
