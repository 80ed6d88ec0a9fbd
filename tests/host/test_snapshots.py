"""Snapshots, forks and rollbacks of running and stopped instances."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually, slowly
from test_disk_full import filled, tight

from sublet.domain.config import Config
from sublet.drivers import mount

__all__ = ["tight"]

COUNT = "i=0; while :; do i=$((i+1)); echo $i > /a; echo $i > /data/b; done"


def ids(sublet: Sublet) -> list[str]:
    return sublet.ok("snapshots", "-q").split()


def pool_of(sublet: Sublet) -> Path:
    """Where the daemon's layers and snapshots are."""
    config = Config(root=sublet.root, run=sublet.run_dir)
    pool = mount.base(config.run, config.identity) / "pool"
    return pool if pool.is_dir() else sublet.root


@pytest.fixture
def box(sublet: Sublet) -> Iterator[Sublet]:
    """A running instance `box` that writes, with a volume of its own and one with a name."""
    command = (BASE, "sh", "-c", COUNT)
    mounts = ("-v", "/data", "-v", "shared:/shared")
    sublet.ok("run", "-d", "--name", "box", "-p", "80", *mounts, *command)
    yield sublet
    sublet.ok("rm", "-f", "-v", *sublet.ok("ps", "-aq").split())
    sublet.ok("volume", "prune", "-a", "-f")
    assert ids(sublet) == []  # they go with their instance


def test_a_fork_is_an_instance_of_its_own(box: Sublet) -> None:
    script = "rm /etc/fstab /usr/bin/env; echo mine > /mine; chown 5:6 /mine; echo x > /shared/x"
    box.ok("exec", "box", "sh", "-c", script)
    made = box.ok("fork", "box", "--name", "twin")
    one, two = box.json("inspect", "box"), box.json("inspect", "twin")
    assert (two["id"], two["state"], two["image"]) == (made, "running", BASE)
    assert one["address"] != two["address"]
    assert two["hostname"] == two["id"]
    assert two["ports"][0]["container_port"] == 80
    assert two["ports"][0]["host_port"] not in (0, one["ports"][0]["host_port"])
    look = "cat /mine; stat -c %u:%g /mine; ls /usr/bin/env 2>&1 | grep -c cannot; cat /shared/x"
    assert box.ok("exec", "twin", "sh", "-c", look).split() == ["mine", "5:6", "1", "x"]
    box.ok("exec", "twin", "sh", "-c", "echo theirs > /mine; touch /shared/y; rm /etc/passwd")
    assert box.ok("exec", "box", "sh", "-c", "cat /mine; ls /shared").split() == ["mine", "x", "y"]
    again = box.ok("fork", "twin", "-p", "81")  # of a fork, whose ids are shown mapped
    assert box.ok("exec", again, "cat", "/mine") == "theirs"
    assert box.ok("exec", again, "sh", "-c", "echo n > /new; stat -c %u:%g /new /mine").split() == [
        "0:0",
        "5:6",
    ]
    assert [port["container_port"] for port in box.json("inspect", again)["ports"]] == [81]


def test_what_was_copied_for_a_fork_goes_with_it(box: Sublet) -> None:
    had = box.ok("volume", "ls", "-q").split()
    box.ok("fork", "box", "--name", "twin")
    box.ok("fork", "twin", "--name", "third")
    (copied,) = set(box.ok("volume", "ls", "-q").split()) - set(had) - _volumes(box, "third")
    assert copied in _volumes(box, "twin")
    box.ok("rm", "-f", "twin")
    assert box.ok("exec", "third", "sh", "-c", "test -e /data/b && echo there") == "there"
    box.ok("rm", "-f", "third")
    assert box.ok("volume", "ls", "-q").split() == had
    box.ok("run", "-d", "--name", "other", "-v", "/data", BASE, "sleep", "99")
    box.ok("rm", "-f", "other")
    assert len(box.ok("volume", "ls", "-q").split()) == len(had) + 1  # somebody asked for that one


def _volumes(sublet: Sublet, name: str) -> set[str]:
    return {mount["source"] for mount in sublet.json("inspect", name)["mounts"]}


def test_layer_and_volume_are_of_one_moment(box: Sublet) -> None:
    """The writer is never more than one write ahead in either, in every copy."""
    for number in range(5):
        kept = box.ok("snapshot", "box", "--name", f"s{number}")
        (volume,) = box.json("snapshot", "inspect", kept)["volumes"]
        home = pool_of(box) / "snapshots" / kept
        first = (home / "layer/upper/a").read_text() or "0"
        second = (home / volume / "data/b").read_text() or "0"
        assert abs(int(first) - int(second)) <= 1 or "0" in (first, second)
    assert [row["name"] for row in box.json("snapshots", "box", "--json")] == [
        f"s{number}" for number in (4, 3, 2, 1, 0)
    ]
    event = [row for row in box.json("events", "--json") if row["type"] == "instance.snapshot"][-1]
    assert float(event["detail"]["paused_ms"]) > 0
    assert box.json("inspect", "box")["state"] == "running"


def test_a_rollback(box: Sublet) -> None:
    box.ok("exec", "box", "sh", "-c", "echo before > /x; echo before > /data/x; touch /shared/x")
    kept = box.ok("snapshot", "box", "--name", "good")
    change = "echo after > /x; rm /data/x; touch /new; rm -f /shared/x"
    box.ok("exec", "box", "sh", "-c", change)
    box.ok("stop", "-t", "0", "box")
    assert box.ok("rollback", "box", "good") == "box"
    assert box.json("inspect", "box")["state"] == "stopped"
    box.ok("start", "box")
    look = "cat /x /data/x; ls /new /shared/x 2>&1 | grep -c cannot"
    assert box.ok("exec", "box", "sh", "-c", look).split() == ["before", "before", "2"]
    box.ok("exec", "box", "sh", "-c", change)
    twin = box.ok("fork", kept)  # the snapshot is none of what it was taken of
    assert box.ok("exec", twin, "cat", "/x", "/data/x").split() == ["before", "before"]
    refused(box, "rollback", twin, "good", code=1, says="no snapshot 'good'")
    box.ok("snapshot", "rm", "good")
    refused(box, "fork", "good", code=1, says="no instance and no snapshot")
    refused(box, "snapshot", "nobody", code=1, says="no instance")


def test_a_limited_disk(sublet: Sublet) -> None:
    sublet.ok(
        "run", "-d", "--name", "box", "--disk", "64m", "--stop-timeout", "0", BASE, "sleep", "600"
    )
    sublet.ok("exec", "box", "sh", "-c", "head -c 20m /dev/urandom > /x; chown 7 /x; sha256sum /x")
    wanted = sublet.ok("exec", "box", "sh", "-c", "sha256sum /x; stat -c %u /x")
    kept = sublet.ok("snapshot", "box")
    twin = sublet.ok("fork", "box")
    assert sublet.ok("exec", twin, "sh", "-c", "sha256sum /x; stat -c %u /x") == wanted
    outcome = sublet("exec", twin, "sh", "-c", "head -c 64m /dev/zero > /y")
    assert "No space left" in outcome.err  # the limit is the fork's as well
    sublet.ok("exec", "box", "rm", "/x")
    sublet.ok("rollback", "box", kept)
    assert sublet.ok("exec", "box", "sh", "-c", "sha256sum /x; stat -c %u /x") == wanted


def test_space_is_shared(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "600")
    sublet.ok("exec", "box", "sh", "-c", "head -c 100m /dev/urandom > /x; sync")
    pool = sublet.root / "pool.img"
    if not pool.exists():
        pytest.fail("this host's own file system shares blocks: nothing to measure in a file")
    before = pool.stat().st_blocks * 512
    for _ in range(3):
        sublet.ok("snapshot", "box")
    assert pool.stat().st_blocks * 512 - before < 20 << 20
    sublet.ok("rm", "-f", "box")
    eventually(lambda: pool.stat().st_blocks * 512 < before - (80 << 20), "the room comes back")


@pytest.mark.parametrize("delays", [(0.02, 0.3), *slowly((0.1, 0.6))], ids=["these", "others"])
def test_a_killed_daemon(own: Sublet, delays: tuple[float, ...]) -> None:
    """Whatever it was copying is gone, what it had paused runs, and what was kept is kept."""
    script = "while :; do date > /tick; sleep 0.05; done"
    own.ok("run", "-d", "--name", "box", "-v", "/data", "--disk", "1g", BASE, "sh", "-c", script)
    own.ok("exec", "box", "sh", "-c", "head -c 200m /dev/urandom > /data/x; echo kept > /data/y")
    kept = own.ok("snapshot", "box", "--name", "first")
    for delay in delays:
        for command in (("snapshot", "box"), ("fork", "box"), ("rollback", "box", "first")):
            process, pid = own.spawn(*command), own.daemon_pid()
            try:
                process.wait(delay)
            except Exception:  # it is in the middle of it
                os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=60)
            eventually(lambda: own("ps").code == 0, "a daemon answers")
            rows = {row["name"]: row["state"] for row in own.json("ps", "-a", "--json")}
            if rows["box"] == "stopped":
                own.ok("start", "box")
            assert own.ok("exec", "box", "cat", "/data/y") == "kept"
            eventually(lambda: own("audit").code == 0, "the audit is clean")
            others = [name for name in rows if name != "box"]
            if others:
                own.ok("rm", "-f", "-v", *others)
    assert kept in ids(own)
    own.ok("rm", "-f", "-v", "box")


@pytest.mark.parametrize(
    ("point", "content"),
    [
        pytest.param("snapshot/first pass:before", "new", marks=pytest.mark.slow),
        ("snapshot/pause:before", "new"),
        pytest.param("snapshot/pause:after", "new", marks=pytest.mark.slow),
        pytest.param("fork/first pass:before", "new", marks=pytest.mark.slow),
        pytest.param("fork/pause:before", "new", marks=pytest.mark.slow),
        pytest.param("rollback/prepare:before", "new", marks=pytest.mark.slow),
        pytest.param("rollback/prepare:after", "new", marks=pytest.mark.slow),
        pytest.param("rollback/mark:before", "new", marks=pytest.mark.slow),
        ("rollback/mark:after", "old"),
        ("rollback/replace:after", "old"),
    ],
)
def test_a_daemon_that_dies_at(tight: Sublet, point: str, content: str) -> None:
    """The instance has its new files, or those of the snapshot: never half of each."""
    command = ("small", "sh", "-c", "while :; do sleep 0.1; done")
    tight.ok("run", "-d", "--name", "box", "--stop-timeout", "0", "-v", "/data", *command)
    tight.ok("exec", "box", "sh", "-c", "echo old > /x; echo old > /data/x")
    kept = tight.ok("snapshot", "box", "--name", "first")
    tight.ok("exec", "box", "sh", "-c", "echo new > /x; echo new > /data/x")
    tight.ok("daemon", "--stop")
    verb = point.partition("/")[0]
    args = (verb, "box", "first") if verb == "rollback" else (verb, "box")
    outcome = replace(tight, extra={"SUBLET_FAULT": point})(*args)
    assert outcome.code == 1
    assert "The daemon" in outcome.err, f"{point} was not met"
    eventually(lambda: tight("audit").code == 0, "the audit is clean")
    assert ids(tight) == [kept]
    rows = {row["name"]: row["state"] for row in tight.json("ps", "-a", "--json")}
    assert list(rows) == ["box"]
    if rows["box"] == "stopped":
        tight.ok("start", "box")
    assert tight.ok("exec", "box", "cat", "/x", "/data/x").split() == [content, content]
    place = pool_of(tight) / "instances" / tight.json("inspect", "box")["id"]
    assert {"new", "old", "rollback"}.isdisjoint(os.listdir(place))
    tight.ok("rm", "-f", "-v", "box")


def test_a_full_disk(tight: Sublet) -> None:
    """The host has no room for a copy: it is said, nothing stays, and the instance runs on."""
    tight.ok("run", "-d", "--name", "box", "small", "sh", "-c", "cat /bin/sh > /x; sleep 600")
    eventually(lambda: tight("exec", "box", "sh", "-c", "cat /x > /y").code == 0, "it has written")
    with filled(tight.root, 64 << 10):
        for command in ("snapshot", "fork"):
            outcome = tight(command, "box")
            assert (outcome.code, outcome.out) == (1, "")
            assert "No space left on the host" in outcome.err
            assert len(tight.json("ps", "-a", "--json")) == 1
            assert tight("audit").code == 0
    assert ids(tight) == []
    assert tight.json("inspect", "box")["state"] == "running"
    tight.ok("snapshot", "box")
    tight.ok("rm", "-f", "box")
    assert Path(tight.root, "snapshots").is_dir()
