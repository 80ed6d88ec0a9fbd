"""Backups that nobody has to think of: at a notice, at a stop, and what does not fit in time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Sublet, eventually
from marketlab import IMAGE, LOOP, comes, events, small_host, states


@contextmanager
def host_with(notice: str) -> Iterator[Sublet]:
    with small_host(SUBLET_NOTICE=notice) as sublet:
        sublet.ok("create", "--name", "first", IMAGE, "true")
        sublet.ok("backup", "first")  # makes the repository, which takes seconds
        sublet.ok("rm", "first")
        yield sublet


@pytest.fixture(scope="module")
def patient() -> Iterator[Sublet]:
    with host_with("15s") as sublet:
        yield sublet


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sublet]:
    with host_with("2s") as sublet:
        yield sublet


@pytest.fixture
def host(patient: Sublet) -> Iterator[Sublet]:
    yield patient
    patient.clean()


def run(sublet: Sublet, name: str, *flags: str) -> str:
    return sublet.ok("run", "-d", "--name", name, *flags, IMAGE, *LOOP)


def write(sublet: Sublet, name: str, text: str) -> None:
    sublet.ok("exec", name, "sh", "-c", f"echo {text} > /written")


def rows(sublet: Sublet, name: str) -> list[dict[str, Any]]:
    return list(sublet.json("backups", name, "--json"))


def done(sublet: Sublet, name: str) -> int:
    return len(events(sublet, "backup.completed", name))


def complete_within(sublet: Sublet, name: str, seconds: float) -> None:
    eventually(lambda: [r["complete"] for r in rows(sublet, name)] == [True], "a backup", seconds)


def complete(sublet: Sublet, name: str, count: int = 1) -> None:
    def there() -> bool:
        found = rows(sublet, name)
        return len(found) == count and all(row["complete"] for row in found)

    eventually(there, f"{count} backups of {name} are complete", 120)


def test_a_terminated_one_comes_back(host: Sublet) -> None:
    run(host, "lost", "--spot", "--backup", "on-notice")
    assert host.json("inspect", "lost")["backup"]["on_notice"] is True
    write(host, "lost", "kept")
    host.ok("reclaim", "lost")
    comes(host, "lost", "gone")
    complete(host, "lost")
    (started,) = events(host, "backup.started", "lost")
    (done,) = events(host, "backup.completed", "lost")
    (taken,) = events(host, "reclaim", "lost")
    assert started["time"] < done["time"] < taken["time"]
    host.ok("restore", rows(host, "lost")[0]["id"])
    assert host.ok("exec", "lost", "cat", "/written") == "kept"
    assert host.json("inspect", "lost")["market"] == "spot"


def test_at_every_stop(host: Sublet) -> None:
    run(host, "tidy", "--backup", "on-stop", "--backup-keep", "last=1")
    for count, text in enumerate(("one", "two"), 1):
        write(host, "tidy", text)
        host.ok("stop", "tidy")
        eventually(lambda count=count: done(host, "tidy") == count, "it is backed up")
        host.ok("start", "tidy")
    host.ok("update", "tidy", "--backup", "none")
    host.ok("stop", "tidy")
    host.ok("start", "tidy")
    assert host.json("inspect", "tidy")["backup"] is None
    host.ok("update", "tidy", "--backup", "on-stop", "--backup-keep", "last=1")
    host.ok("restart", "tidy")  # no stop that anybody meant
    complete(host, "tidy")  # and the one before is gone
    assert len(events(host, "backup.started", "tidy")) == 2
    host.ok("restore", rows(host, "tidy")[0]["id"], "--as", "copy", "--start")
    assert host.ok("exec", "copy", "cat", "/written") == "two"


@pytest.mark.parametrize("action", [pytest.param("stop", marks=pytest.mark.slow), "terminate"])
def test_what_does_not_fit_is_sent_afterwards(hasty: Sublet, action: str) -> None:
    """It says what is missing at the deadline, and nothing is lost: a copy is on the host."""
    name, host = f"large-{action}", hasty
    run(host, name, "--spot", "--on-reclaim", action, "--backup", "on-notice")
    data = much(host, name)
    host.ok("reclaim", name)

    found: list[dict[str, Any]] = []

    def cut_off() -> bool:  # soon it is complete
        found[:] = [r for r in rows(host, name) if not r["complete"] and r["reason"]]
        return bool(found)

    eventually(cut_off, "the backup is cut off")
    (row,) = found
    assert "files" in row["missing"]
    eventually(lambda: events(host, "backup.incomplete", name), "it is told")
    assert events(host, "backup.incomplete", name)[0]["detail"]["missing"] == row["missing"]
    comes(host, name, "stopped" if action == "stop" else "gone")
    taken = events(host, "reclaim", name)[-1]["time"]
    assert events(host, "backup.incomplete", name)[0]["time"] < taken
    complete(host, name)
    copy = f"{name}-copy"
    host.ok("restore", row["id"], "--as", copy, "--start")
    host.ok("cp", f"{copy}:/data", str(host.home / "back"))
    assert (host.home / "back").read_bytes()[-(1 << 20) :] == data
    assert states(host)[copy] == "running"
    host.clean()


def much(sublet: Sublet, name: str) -> bytes:
    """Write more into an instance than is sent in a second or two; the last MiB of it."""
    data, file = b"", sublet.home / "data"
    with file.open("wb") as opened:
        for _ in range(300):
            data = os.urandom(1 << 20)
            opened.write(data)
    sublet.ok("cp", str(file), f"{name}:/data")
    return data


@pytest.mark.slow
def test_a_notice_while_another_backup_is_sent(hasty: Sublet) -> None:
    """What it has written since that one began is not lost."""
    name, host = "busy", hasty
    run(host, name, "--spot", "--on-reclaim", "terminate", "--backup", "on-notice")
    much(host, name)
    earlier = host.spawn("backup", name)
    eventually(lambda: len(events(host, "backup.copied", name)) == 1, "the first one is sent")
    write(host, name, "at the last moment")
    host.ok("reclaim", name)
    earlier.communicate(timeout=120)
    comes(host, name, "gone")
    complete(host, name, 2)
    host.ok("restore", rows(host, name)[0]["id"], "--as", "busy-copy", "--start")
    assert host.ok("exec", "busy-copy", "cat", "/written") == "at the last moment"
    host.clean()


@pytest.mark.slow
def test_every_minute(host: Sublet) -> None:
    """It goes by the rows and the clock: the death of the daemon changes nothing."""
    run(host, "regular", "--backup", "every=1m", "--backup-keep", "last=1")
    begun = time.time()
    host.kill_daemon()
    complete_within(host, "regular", 75)
    assert time.time() - begun > 55
    first = rows(host, "regular")[0]["id"]
    eventually(lambda: [r["id"] for r in rows(host, "regular")] not in ([first], []), "next", 80)
    eventually(lambda: len(rows(host, "regular")) == 1, "the one before is gone")


def test_refusals(host: Sublet) -> None:
    outcome = host("run", "--rm", "--backup", "on-stop", IMAGE, "true")
    assert outcome.code == 125
    assert "--rm" in outcome.err
    outcome = host("run", "--backup-keep", "last=1", IMAGE, "true")
    assert outcome.code == 125
