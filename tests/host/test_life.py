"""The verbs of an instance's life: created, started again, paused, renamed, resized."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from clilab import talks
from conftest import BASE, Sublet, eventually

from sublet.domain.errors import InvalidArgument
from sublet.sdk import Client

LOOP = ["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"]


def state(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["state"])


def test_created_started_stopped_and_started_again(sublet: Sublet) -> None:
    made = sublet.ok("create", "--name", "box", BASE, "sh", "-c", "cat /mark; echo x >> /mark")
    assert sublet.json("inspect", made)["state"] == "stopped"
    assert sublet.json("inspect", made)["started"] is None
    assert sublet.ok("wait", "box") == "0"
    address = sublet.json("inspect", "box")["address"]
    for expected in ("", "x\n", "x\nx\n"):
        outcome = sublet("start", "-a", "box")
        assert outcome.out == expected
    assert sublet.json("inspect", "box")["address"] == address
    assert sublet.ok("start", "box") == "box"
    assert sublet.ok("wait", "box") == "0"


def test_one_whose_start_fails_stays(sublet: Sublet) -> None:
    sublet.ok("create", "--name", "box", BASE, "/no/such/command")
    outcome = sublet("start", "box")
    assert outcome.code == 1
    assert "no such" in outcome.err.lower()
    row = sublet.json("inspect", "box")
    assert row["state"] == "stopped"
    assert "no such" in row["reason"].lower()
    assert sublet("start", "-a", "box").code == 1


def test_restart_keeps_what_rm_would_delete(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--rm", "--name", "box", BASE, *LOOP)
    before = sublet.json("inspect", "box")
    sublet.ok("restart", "-t", "5", "box")
    after = sublet.json("inspect", "box")
    assert (after["id"], after["state"]) == (before["id"], "running")
    assert after["pid"] != before["pid"]
    sublet.ok("stop", "box")
    eventually(lambda: sublet("inspect", "box").code == 1, "it is deleted")


def test_a_paused_instance_stands_still_and_goes_on(sublet: Sublet) -> None:
    count = "i=0; while :; do i=$((i+1)); echo $i > /count; done"
    sublet.ok("run", "-d", "--name", "box", BASE, "sh", "-c", count)
    eventually(lambda: sublet("exec", "box", "cat", "/count").out.strip(), "it counts")
    pid = sublet.json("inspect", "box")["pid"]

    def used() -> str:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].split()[11]

    assert sublet.ok("pause", "box") == "box"
    assert state(sublet, "box") == "paused"
    before = used()
    refused = sublet("exec", "box", "true")
    assert (refused.code, "paused" in refused.err) == (1, True)
    assert "unpause" in refused.err
    assert sublet("pause", "box").code == 1
    assert used() == before
    sublet.ok("unpause", "box")
    assert state(sublet, "box") == "running"
    eventually(lambda: used() != before, "it runs again")
    assert sublet("unpause", "box").code == 1


@pytest.mark.parametrize("how", [["stop", "-t", "60"], ["kill"], ["rm", "-f"]])
def test_a_paused_instance_can_be_ended(sublet: Sublet, how: list[str]) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, *LOOP)
    eventually(lambda: sublet.ok("logs", "box") == "up", "it listens")
    sublet.ok("pause", "box")
    sublet.ok(*how, "box")
    if how[0] != "rm":
        assert sublet.ok("wait", "box") == ("0" if how[0] == "stop" else "137")


def test_pause_and_all_else_survive_the_daemon(own: Sublet) -> None:
    own.ok("run", "-d", "--name", "paused", BASE, *LOOP)
    own.ok("create", "--name", "made", "--rm", BASE, "true")
    own.ok("run", "--name", "ended", BASE, "sh", "-c", "echo a > /mark")
    own.ok("pause", "paused")
    own.kill_daemon()
    assert {row["name"]: row["state"] for row in own.json("ps", "-a", "--json")} == {
        **{"paused": "paused", "made": "stopped", "ended": "stopped"}
    }
    own.ok("unpause", "paused")
    own.ok("exec", "paused", "true")
    own.ok("stop", "paused")
    own.ok("start", "ended")
    own.ok("start", "-a", "made")
    eventually(lambda: own("inspect", "made").code == 1, "it is deleted")


def test_rename(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "old", BASE, *LOOP)
    sublet.ok("create", "--name", "other", BASE, "true")
    assert "in use" in sublet("rename", "old", "other").err
    assert "shape of an id" in sublet("rename", "old", "0123456789ab").err
    assert "shape of an id" in sublet("create", "--name", "0123456789ab", BASE).err
    sublet.ok("rename", "old", "new")
    assert sublet("inspect", "old").code == 1
    found = sublet.ok("run", "--rm", BASE, "getent", "hosts", "new")
    assert found.split()[0] == sublet.json("inspect", "new")["address"]


def test_a_running_instance_is_resized(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", "-m", "256m", "--cpus", "1", BASE, *LOOP)
    sublet.ok("update", "--memory", "512m", "--cpus", "0.5", "--pids-limit", "99", "box")
    limits = sublet.json("inspect", "box")["limits"]
    assert (limits["cpus"], limits["memory"], limits["pids"]) == (0.5, 512 << 20, 99)
    sublet.ok("update", "--memory", "200m", "box")
    sublet.ok("exec", "box", "sh", "-c", "head -c 40m /dev/zero > /dev/shm/fill")
    refused = sublet("update", "--memory", "16m", "box")
    assert (refused.code, "uses 4" in refused.err) == (1, True)
    too_much = sublet("update", "--memory", "900g", "box")
    assert (too_much.code, "memory free" in too_much.err) == (1, True)
    assert "nothing to update" in sublet("update", "box").err


def test_wait_for_running_and_its_failure(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--wait", "--name", "box", BASE, *LOOP)
    assert sublet.ok("wait", "--condition", "running", "box") == "box"
    waiting = sublet.spawn("wait", "--condition", "removed", "box")
    talks(waiting)
    sublet.ok("ps")  # by then it has been heard
    sublet.ok("rm", "-f", "box")
    assert waiting.communicate(timeout=60)[0] == "box\n"


def test_wait_healthy_tells_what_was_written_last(sublet: Sublet) -> None:
    sublet.ok("create", "--name", "box", BASE, "sh", "-c", "echo bad luck; exit 3")
    sublet("start", "-a", "box")
    outcome = sublet("wait", "--condition", "healthy", "box")
    assert (outcome.code, "ended with 3 before it was healthy" in outcome.err) == (1, True)


def test_pull_never_and_cidfile(sublet: Sublet, tmp_path: Path) -> None:
    file = tmp_path / "id"
    missing = sublet("run", "--pull", "never", "--cidfile", str(file), "no/such:image", "true")
    assert (missing.code, file.exists()) == (125, False)
    assert sublet("run", "--pull", "perhaps", BASE, "true").code == 125
    sublet.ok("run", "-d", "--cidfile", str(file), "--name", "box", BASE, *LOOP)
    assert file.read_text() == sublet.json("inspect", "box")["id"]
    again = sublet("run", "--cidfile", str(file), BASE, "true")
    assert (again.code, "exists" in again.err) == (125, True)


def test_attach_shares_the_streams_and_detaches(sublet: Sublet) -> None:
    script = "while :; do echo .; read -t 1 a && echo got $a; [ x$a != xend ] || exit 7; done"
    sublet.ok("run", "-dit", "--name", "box", BASE, "bash", "-c", script)
    master, slave = pty.openpty()
    terminal = {"stdin": slave, "stdout": slave, "stderr": slave}
    first, second = sublet.spawn("attach", "box", **terminal), sublet.spawn("attach", "box")
    assert second.stdout is not None
    assert "." in second.stdout.readline()
    written = b""

    def shows(text: bytes) -> bool:
        nonlocal written
        written += os.read(master, 4096)
        return text in written

    os.write(master, b"hello\n")
    eventually(lambda: shows(b"got hello"), "the terminal shows it")
    os.write(master, b"\x10\x11")
    assert first.wait(timeout=60) == 0
    assert state(sublet, "box") == "running"
    third = sublet.spawn("attach", "--detach-keys", "ctrl-x", "box", **terminal)
    os.write(master, b"again\n")
    eventually(lambda: shows(b"got again"), "one that attaches later may type too")
    os.write(master, b"end\n")
    assert third.wait(timeout=60) == 7
    seen = second.communicate(timeout=60)[0]
    assert "got hello" in seen
    assert "got again" in seen
    assert second.returncode == 7
    for fd in (master, slave):
        os.close(fd)


def test_start_with_input_gives_it_to_the_command(sublet: Sublet) -> None:
    sublet.ok("create", "-i", "--name", "box", BASE, "sh", "-c", "cat; exit 4")
    for text in ("one\n", "two\n"):
        outcome = sublet("start", "-ai", "box", input=text)
        assert (outcome.code, outcome.out) == (4, text)


def test_run_waits_until_it_is_healthy(sublet: Sublet) -> None:
    check = ["--health-cmd", "test -e /ready", "--health-interval", "0.2s"]
    late = ["sh", "-c", "sleep 1; touch /ready; exec sleep 1000"]
    sublet.ok(
        "run", "-d", "--wait", "--name", "good", *check, "--health-retries", "99", BASE, *late
    )
    assert sublet.json("inspect", "good")["health"] == "healthy"
    assert "running (healthy)" in sublet.ok("ps")
    never = ["--health-retries", "2", BASE, "sh", "-c", "echo bad luck; exec sleep 1000"]
    outcome = sublet("run", "-d", "--wait", "--name", "bad", *check, *never)
    assert outcome.code == 1
    assert "bad is unhealthy" in outcome.err
    assert "bad luck" in outcome.err
    ends = [BASE, "sh", "-c", "echo too soon; exit 3"]
    outcome = sublet("run", "-d", "--wait", "--name", "gone", *check, *ends)
    assert outcome.code == 1
    assert "gone ended with 3 before it was healthy" in outcome.err
    assert "too soon" in outcome.err


def test_unknown_keys_are_refused(sublet: Sublet) -> None:
    mount = {"source": "/tmp", "destination": "/a", "colour": "red"}
    client = Client(str(sublet.run_dir / "sublet.sock"))
    with pytest.raises(InvalidArgument, match=r"unknown key 'mounts\.0\.colour'"):
        client.launch({"image": BASE, "mounts": [mount]}, start=False)
    with pytest.raises(InvalidArgument, match="unknown key 'memry'"):
        client.foreground({"image": BASE, "memry": 5})
    with pytest.raises(InvalidArgument, match="unknown key 'cpu'"):
        client.call("PATCH", "/v1/instances/box", {"cpu": 5})


def test_dockers_groups_hold_the_same_verbs(sublet: Sublet) -> None:
    sublet.ok("instance", "create", "--name", "box", BASE, "true")
    assert [row["name"] for row in sublet.json("container", "ls", "-a", "--json")] == ["box"]
    assert sublet.ok("container", "run", "--rm", BASE, "echo", "here") == "here"
    assert sublet("container", "run", "--rm", BASE, "/no/such").code == 127
    sublet.ok("container", "rm", "box")
