"""What users look at: ps, top, stats, logs, events, ports, completion."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from conftest import BASE, SUBLET, Sublet, eventually

LOOP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


def names(sublet: Sublet, *flags: str) -> list[str]:
    return [row["name"] for row in sublet.json("ps", "--json", *flags)]


def test_ps_filters(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "one", "-l", "team=red", "-p", "127.0.0.1::80", BASE, *LOOP)
    sublet.ok("create", "--name", "two", "-l", "team=blue", BASE, "true")
    sublet("run", "--name", "three", BASE, "sh", "-c", "echo hello > /file; exit 3")
    assert names(sublet) == ["one"]
    assert names(sublet, "-a", "--filter", "label=team") == ["two", "one"]
    assert names(sublet, "--filter", "exited=3") == ["three"]
    assert names(sublet, "--filter", "status=created") == ["two"]
    assert names(sublet, "-n", "2") == ["three", "two"]
    assert names(sublet, "-l") == ["three"]
    assert names(sublet, "-a", "--filter", "before=two") == ["one"]
    assert names(sublet, "-a", "--filter", f"ancestor={BASE}", "--filter", "name=t") == [
        *("three", "two")
    ]
    assert sublet.json("ps", "-l", "-s", "--json")[0]["written"] >= 4096
    refused = sublet("ps", "--filter", "colour=red")
    assert (refused.code, "no filter" in refused.err) == (1, True)
    assert "WRITTEN" in sublet.ok("ps", "-a", "-s")
    published = sublet.ok("port", "one", "80")
    assert published.startswith("127.0.0.1:")
    assert sublet.ok("port", "one") == f"80/tcp -> {published}"
    assert sublet.json("port", "one", "--json") == sublet.json("inspect", "one")["ports"]
    assert sublet.json("port", "one", "80", "--json") == sublet.json("port", "one", "--json")
    assert sublet("port", "one", "81").code == 1


def test_top_shows_pids_and_users_as_seen_inside(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", "-u", "www-data", BASE, "sleep", "1000")
    (row,) = sublet.json("top", "box", "--json")
    assert (row["user"], row["pid"], row["command"]) == ("www-data", 1, "sleep 1000")
    assert row["host_pid"] == sublet.json("inspect", "box")["pid"]
    with open(f"/proc/{row['host_pid']}/cmdline") as file:
        assert file.read() == "sleep\x001000\x00"
    other = sublet.spawn("exec", "-u", "root", "box", "sleep", "999")
    eventually(lambda: "sleep 999" in sublet.ok("top", "box"), "the exec is listed")
    users = {row["command"]: row["user"] for row in sublet.json("top", "box", "--json")}
    assert users == {"sleep 1000": "www-data", "sleep 999": "root"}
    sublet.ok("rm", "-f", "box")
    other.communicate(timeout=60)
    assert sublet("top", "box").code == 1


def test_stats(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "idle", BASE, "sleep", "1000")
    work = "head -c 30m /dev/zero > /dev/shm/fill; while :; do :; done"
    sublet.ok("run", "-d", "--name", "busy", "-m", "128m", BASE, "sh", "-c", work)
    sublet.ok("create", "--name", "off", BASE, "true")

    def seen() -> dict[str, dict[str, float]]:
        rows = sublet.json("stats", "--no-stream", "--json")
        return {row["name"]: row for row in rows}

    rows: dict[str, dict[str, float]] = {}

    def works() -> bool:
        rows.update(seen())
        busy = rows["busy"]
        return busy["memory"] > 30 << 20 and busy["cpu_percent"] > rows["idle"]["cpu_percent"] + 5

    eventually(works, "it is seen at work")
    assert set(rows) == {"idle", "busy"}
    assert 30 << 20 < rows["busy"]["memory"] < rows["busy"]["memory_limit"] == 128 << 20
    assert rows["idle"]["pids"] >= 1
    (only,) = sublet.json("stats", "--no-stream", "--json", "off")
    assert (only["name"], only["memory"]) == ("off", 0)
    assert len(sublet.json("stats", "-a", "--no-stream", "--json")) == 3
    sublet.ok("exec", "idle", "sh", "-c", "getent hosts busy")
    traffic = seen()["idle"]
    assert traffic["network_sent"] > 0
    stream = sublet.spawn("stats", "--json", "idle")
    assert stream.stdout is not None
    assert stream.stderr is not None
    lines = [json.loads(stream.stdout.readline()) for _ in range(2)]
    assert [line[0]["name"] for line in lines] == ["idle", "idle"]
    sublet.ok("rm", "-f", "idle")
    assert stream.wait(timeout=60) == 0
    stream.stdout.close()
    stream.stderr.close()
    assert sublet("stats", "nobody").code == 1


def test_logs_of_some_time_and_the_last_lines(sublet: Sublet) -> None:
    script = "for i in 1 2 3; do echo $i; done; sleep 1; echo 4; sleep 1000"
    sublet.ok("run", "-d", "--name", "box", BASE, "sh", "-c", script)
    eventually(lambda: "4" in sublet.ok("logs", "box"), "all is written")
    assert sublet.ok("logs", "--tail", "2", "box") == "3\n4"
    assert sublet.ok("logs", "-n", "0", "box") == ""
    stamps = [line.split()[0] for line in sublet.ok("logs", "-t", "box").splitlines()]
    assert sublet.ok("logs", "--since", stamps[3], "box") == "4"
    assert sublet.ok("logs", "--until", stamps[2], "box") == "1\n2\n3"
    assert sublet.ok("logs", "--since", "2h", "--until", "1h", "box") == ""
    follower = sublet.spawn("logs", "-f", "--tail", "1", "box")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "4\n"
    sublet.ok("kill", "box")
    assert follower.communicate(timeout=60)[0] == ""
    assert sublet("logs", "--tail", "few", "box").code == 1
    assert "point in time" in sublet("logs", "--since", "noon", "box").err


def test_events_are_filtered_and_none_is_lost(sublet: Sublet) -> None:
    begin = str(time.time())
    follower = sublet.spawn("events", "-f", "--json", "--since", begin, "--filter", "instance=ev")
    sublet.ok("run", "--name", "ev", "-l", "team=red", BASE, "true")
    sublet.ok("rename", "ev", "ev2")
    sublet.ok("rm", "ev2")
    rows = sublet.json("events", "--json", "--since", begin, "--filter", "label=team=red")
    kinds = [row["type"].removeprefix("instance.") for row in rows]
    assert kinds == ["pending", "running", "stopped", "renamed", "shutting-down", "terminated"]
    assert {row["detail"]["image"] for row in rows} == {BASE}
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))
    assert follower.stdout is not None
    followed = [json.loads(follower.stdout.readline())["id"] for _ in range(3)]
    assert followed == ids[:3]
    follower.terminate()
    follower.communicate(timeout=60)
    only = sublet.json("events", "--json", "--since", begin, "--filter", "event=stopped")
    assert [row["detail"]["exit_code"] for row in only] == ["0"]
    assert sublet.json("events", "--json", "--until", begin, "--filter", "instance=ev") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sublet stop bo", "box"),
        ("sublet run deb", BASE),
        ("sublet backup bo", "box"),
        ("sublet run --on-reclaim hi", "hibernate"),
        ("sublet create --size me", "medium"),
        ("sublet spot cancel bo", "box"),
    ],
)
def test_completion_knows_the_names(sublet: Sublet, words: str, expected: str) -> None:
    sublet.ok("create", "--name", "box", "--spot", BASE, "true")
    last = str(len(words.split()) - 1)
    typed = {"COMP_WORDS": words, "COMP_CWORD": last, "_SUBLET_COMPLETE": "bash_complete"}
    done = subprocess.run([SUBLET], env={**sublet.env, **typed}, capture_output=True, text=True)
    assert expected in [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_starts_no_daemon(sublet: Sublet, tmp_path: os.PathLike[str]) -> None:
    typed = {"COMP_WORDS": "sublet stop b", "COMP_CWORD": "2", "_SUBLET_COMPLETE": "bash_complete"}
    env = {**os.environ, **typed, "SUBLET_RUN": str(tmp_path), "SUBLET_ROOT": str(tmp_path)}
    done = subprocess.run([SUBLET], env=env, capture_output=True, text=True)
    assert (done.stdout.strip(), os.listdir(tmp_path)) == ("", [])
