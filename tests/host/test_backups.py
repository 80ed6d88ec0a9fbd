"""Backups as a user sees them: what is kept, what comes back, here and on another host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clilab import assert_nothing_left, of_root, processes, refused, size_of
from conftest import BASE, Sublet, eventually

FILL = """
set -e
echo hello > /root/x; ln /root/x /root/y; ln -s /etc /root/link; chmod 4755 /root/x
mkdir -p /home/u; chown 33:34 /home/u; rm /etc/issue
rm -rf /var/cache; mkdir /var/cache; touch -d '2020-01-02 03:04:05.678' /var/cache/n
echo anon > /anon/a; chown 7:8 /anon/a; echo named > /named/b
"""
SHOW = """
cat /root/x /anon/a /named/b; stat -c '%n %h %a %u %g %F' /root/x /root/y /home/u /anon/a
readlink /root/link; stat -c %y /var/cache/n; ls -A /var/cache; test -e /etc/issue && echo issue
exit 0
"""


@pytest.fixture
def idle(sublet: Sublet) -> Iterator[Sublet]:
    """The command line; afterwards no backup is left either."""
    yield sublet
    forget_all(sublet)


def forget_all(sublet: Sublet) -> None:
    ids = sublet.ok("backups", "-q").split()
    if ids:
        sublet.ok("backup", "rm", *ids)
    for row in sublet.json("volume", "ls", "--json"):
        if not row["instances"]:
            sublet.ok("volume", "rm", row["name"])


def backup(sublet: Sublet, *args: str) -> str:
    found = sublet.ok("backup", *args)
    assert re.fullmatch(r"[0-9a-f]{12}", found)
    return found


def show(sublet: Sublet, name: str) -> str:
    return sublet.ok("exec", name, "sh", "-c", SHOW)


def row_of(sublet: Sublet, backup_id: str) -> dict[str, Any]:
    return next(r for r in sublet.json("backups", "--json") if r["id"] == backup_id)


@pytest.mark.parametrize("flags", [(), ("--disk", "128m")], ids=["layer", "disk"])
def test_all_that_it_wrote_comes_back(idle: Sublet, flags: tuple[str, ...]) -> None:
    mounts = ("-v", "/anon", "-v", "bk-named:/named")
    origin = idle.ok(
        *("run", "-d", "--name", "one", *flags, *mounts, "-p", "0:80", "-e", "A=b", "-l", "k=v"),
        *(BASE, "sleep", "inf"),
    )
    idle.ok("exec", "one", "sh", "-c", FILL)
    before = show(idle, "one")
    assert "issue" not in before
    first = backup(idle, "one")
    row = row_of(idle, first)
    assert (row["instance"], row["name"], row["complete"]) == (origin, "one", True)
    assert row["size"] > 0
    assert row["time"].endswith("Z")
    idle.ok("exec", "one", "sh", "-c", "echo later > /root/x; echo later > /anon/a")
    copy = idle.ok("restore", first, "--as", "two", "--size", "0.5x0.25")
    assert show(idle, "two") == before
    made = idle.json("inspect", "two")
    assert (made["id"], made["state"], made["size"]) == (copy, "running", "0.5x0.25")
    assert made["address"] != idle.json("inspect", "one")["address"]
    assert (made["labels"], "A=b" in made["env"], len(made["ports"])) == ({"k": "v"}, True, 1)
    assert made["limits"]["disk"] == (128 << 20 if flags else 0)
    idle.ok("exec", "one", "sh", "-c", "cat /named/b && echo mine > /named/b")
    assert idle.ok("exec", "two", "cat", "/named/b") == "named"  # a copy: the first one is there
    idle.ok("rm", "-f", "-v", "one", "two")
    idle.ok("volume", "rm", *[r["name"] for r in idle.json("volume", "ls", "--json")])
    idle.ok("restore", first)
    assert show(idle, "one") == before
    assert "bk-named" in [mount["source"] for mount in idle.json("inspect", "one")["mounts"]]
    idle.ok("rm", "-f", "-v", "one")
    events = idle.ok("events", "--since", "1h", "--until", "0s", "--filter", "type=backup")
    paused = [float(text) for text in re.findall(r"paused_ms=([\d.]+)", events)]
    assert paused


def test_only_what_changed_is_sent(idle: Sublet, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    idle.ok("run", "-d", "--name", "big", "-v", "/data", BASE, "sleep", "inf")
    write = "head -c 40m /dev/urandom > /data/%s"
    idle.ok("exec", "big", "sh", "-c", write % "a")
    backup(idle, "big", "--repo", str(repository))
    full = size_of(repository)
    assert full > 40 << 20
    # The same size and time: whoever looks at these alone is deceived.
    change = "touch -r /data/a /tmp/t; echo x | dd of=/data/a conv=notrunc; touch -r /tmp/t /data/a"
    idle.ok("exec", "big", "sh", "-c", change)
    second = backup(idle, "big", "--repo", str(repository))
    assert size_of(repository) < full + (8 << 20)
    idle.ok("rm", "-f", "-v", "big")
    idle.ok("restore", second, "--repo", str(repository), "--no-start")
    idle.ok("start", "big")
    assert idle.ok("exec", "big", "head", "-c", "1", "/data/a") == "x"
    idle.ok("rm", "-f", "-v", "big")
    for row in idle.json("backups", "--repo", str(repository), "--json"):
        idle.ok("backup", "rm", row["id"])


def test_some_paths(idle: Sublet) -> None:
    idle.ok("run", "-d", "--name", "part", "-v", "/data", BASE, "sleep", "inf")
    idle.ok("exec", "part", "sh", "-c", "mkdir /home/u; echo 1 >/home/u/a; echo 2 >/data/b; >/c")
    idle.ok("exec", "part", "ln", "-s", "/etc", "/link")
    refused(idle, "backup", "part", "--path", "/srv/none", code=1, says="nothing at")
    refused(idle, "backup", "part", "--path", "home", code=1, says="absolute")
    refused(idle, "backup", "part", "--path", "/link/passwd", code=1, says="link")
    kept = backup(idle, "part", "--path", "/home/u", "--path", "/data")
    idle.ok("restore", kept, "--as", "again")
    assert idle.ok("exec", "again", "cat", "/home/u/a", "/data/b") == "1\n2"
    assert idle("exec", "again", "test", "-e", "/c").code == 1
    idle.ok("rm", "-f", "-v", "part", "again")


def test_retention_and_removal(idle: Sublet) -> None:
    idle.ok("create", "--name", "kept", BASE, "true")
    ids = [backup(idle, "kept") for _ in range(3)]
    assert idle.ok("backups", "kept", "-q").split() == ids[::-1]
    gone = idle.ok("backup", "prune", "kept", "--keep-last", "1", "-f").split()
    assert sorted(gone) == sorted(ids[:2])
    assert idle.ok("backups", "-q").split() == ids[2:]
    idle.ok("backup", "verify", "--data")
    idle.ok("rm", "kept")  # a backup outlives its instance
    assert idle.ok("backups", "kept", "-q").split() == ids[2:]
    idle.ok("backup", "rm", ids[2])
    refused(idle, "backup", "rm", ids[2], code=1, says="no backup")
    idle.ok("backup", "rm", "-f", ids[2])
    refused(idle, "restore", "none", code=1, says="no backup")
    refused(idle, "backup", "none", code=1, says="no instance")
    refused(idle, "backups", "--repo", "nowhere", code=1, says="not a repository")


def test_secrets_stay_secret(idle: Sublet) -> None:
    idle.ok("run", "-d", "--name", "quiet", "-e", "TOKEN=very-secret", BASE, "sleep", "inf")
    backup(idle, "quiet")
    file = idle.root / "backup.password"
    assert file.stat().st_mode & 0o777 == 0o600
    password = file.read_text().strip()
    assert len(password) > 30
    assert not processes(password)
    for place in (idle.root / "sublet.db", idle.root / "sublet.db-wal"):
        assert password.encode() not in place.read_bytes()
    for stored in (idle.root / "backups").rglob("*"):
        assert not stored.is_file() or b"very-secret" not in stored.read_bytes()
    idle.ok("rm", "-f", "quiet")


# Another host


@pytest.fixture
def other(base_file: Path, tmp_path: Path) -> Iterator[Sublet]:
    """Another host: a daemon with a root of its own, which has the image."""
    import tempfile

    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(base_file), "--trust", "-t", BASE)
    yield sublet
    sublet.clean()
    sublet.close()


def test_on_another_host(idle: Sublet, other: Sublet, tmp_path: Path) -> None:
    repository, shown = str(tmp_path / "repository"), tmp_path / "shown"
    shown.mkdir()
    idle.ok("run", "-d", "--name", "moving", "-v", "/data", BASE, "sleep", "inf")
    idle.ok("exec", "moving", "sh", "-c", "echo 1 > /data/a; echo 2 > /root/b; rm /etc/issue")
    kept = backup(idle, "moving", "--repo", repository)
    idle.ok("run", "-d", "--name", "reaching", "-v", f"{shown}:/shown", BASE, "sleep", "inf")
    reaching = backup(idle, "reaching", "--repo", repository)
    idle.ok("create", "--name", "reader", "-v", "ledger:/ledger:ro", BASE, "true")
    reader = backup(idle, "reader", "--repo", repository)
    idle.ok("rm", "reader")
    refused(other, "backups", "--repo", repository, code=1, says="password")
    shutil.copy(idle.root / "backup.password", other.root / "backup.password")
    rows = other.json("backups", "--repo", repository, "--json")
    assert {row["id"] for row in rows} == {kept, reaching, reader}
    other.ok("restore", kept, "--repo", repository)
    script = "cat /data/a /root/b; test ! -e /etc/issue"
    assert other.ok("exec", "moving", "sh", "-c", script) == "1\n2"
    refused(other, "restore", reaching, "--repo", repository, code=1, says=f"mounts {shown}")
    other.ok("volume", "create", "ledger")  # somebody else's, of the same name
    said = "mounts the volume ledger"
    refused(other, "restore", reader, "--repo", repository, code=1, says=said)
    other.ok("volume", "rm", "ledger")
    other.ok("restore", reaching, "--repo", repository, "--trust")
    other.ok("rm", "-f", "-v", "moving", "reaching")
    idle.ok("restore", reaching, "--repo", repository, "--as", "mine")  # its own
    idle.ok("rm", "-f", "-v", "moving", "reaching", "mine")
    for backup_id in (kept, reaching, reader):
        idle.ok("backup", "rm", "--repo", repository, backup_id)


def restic(sublet: Sublet, repository: Path, *args: str, cwd: Path) -> str:
    env = {**os.environ, "RESTIC_PASSWORD_FILE": str(sublet.root / "backup.password")}
    argv = ["restic", "--no-cache", "-r", str(repository), *args]
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_strangers_repository(idle: Sublet, tmp_path: Path) -> None:
    """Who has the password may write anything there; nothing of it reaches the host."""
    repository, fake = tmp_path / "repository", tmp_path / "fake"
    idle.ok("create", "--name", "model", BASE, "true")
    kept = backup(idle, "model", "--repo", str(repository))
    idle.ok("rm", "model")
    restic(idle, repository, "restore", "latest", "--target", str(fake), cwd=tmp_path)
    manifest = json.loads((fake / "manifest.json").read_text())
    manifest["pieces"] = [{"place": "layer", "kind": "files"}]
    upper = fake / "layer/upper"
    upper.mkdir(parents=True, exist_ok=True)

    def strange(number: int) -> str:
        (fake / "manifest.json").write_text(json.dumps(manifest))
        name = f"{number:012x}"
        tags = [f"--tag={t}" for t in ("sublet=1", f"id={name}", "instance=x", "name=model")]
        paths = ["manifest.json", "layer", *(["images"] if (fake / "images").exists() else [])]
        restic(idle, repository, "backup", *tags, *paths, cwd=fake)
        return name

    def attempt(number: int, says: str) -> None:
        args = ("restore", strange(number), "--repo", str(repository))
        outcome = idle(*args)
        assert outcome.code != 0
        assert says in outcome.err, outcome.err
        assert "Traceback" not in outcome.err
        assert_nothing_left(idle)

    attempt(1, "belong to user 0")  # the host's root
    os.chown(upper, 0x20000000 + 65536, 0x20000000 + 65536)
    os.mknod(upper / "disk", 0o060600, os.makedev(8, 0))
    attempt(2, "a device")
    (upper / "disk").unlink()
    (upper / "file").write_text("x")
    os.chown(upper / "file", 1000, 1000)
    attempt(3, "user or group 1000")
    (upper / "file").unlink()
    shutil.rmtree(upper)
    upper.symlink_to("/etc")
    attempt(4, "should be")
    upper.unlink()
    shutil.rmtree(fake / "layer")
    elsewhere = tmp_path / "elsewhere"  # the host's; its files could be another tenant's
    (elsewhere / "upper").mkdir(parents=True)
    os.chown(elsewhere / "upper", 0x20000000 + 65536, 0x20000000 + 65536)
    (fake / "layer").symlink_to(elsewhere)
    attempt(7, "restore failed")
    assert (elsewhere / "upper").exists()
    (fake / "layer").unlink()
    (fake / "layer").mkdir()
    (fake / "images").mkdir()
    (fake / "images/layer.img").write_text("a file system that the host would mount")
    idle.ok("restore", strange(8), "--repo", str(repository), "--start")  # it has no such disk
    idle.ok("rm", "-f", "model")
    shutil.rmtree(fake / "images")
    manifest["pieces"] = [{"place": "../../..", "kind": "files"}]
    attempt(5, "not what this Sublet writes")
    manifest["name"] = "x" * (17 << 20)
    attempt(6, "more than 16777216 bytes")
    assert kept in idle.ok("backups", "--repo", str(repository), "-q")
    shutil.rmtree(repository)


# What is cut off


def slow_backup(sublet: Sublet, name: str, size: str = "200m") -> subprocess.Popen[str]:
    """A backup that takes some seconds, under way."""
    sublet.ok("run", "-d", "--name", name, "-v", "/data", BASE, "sleep", "inf")
    sublet.ok("exec", name, "sh", "-c", f"head -c {size} /dev/urandom > /data/a")
    command = sublet.spawn("backup", name)
    eventually(lambda: stored(sublet) > 20 << 20, "some of it has arrived")
    return command


def stored(sublet: Sublet) -> int:
    return size_of(sublet.root / "backups/data")


def sends(sublet: Sublet) -> bool:
    """Whether a restic of this daemon runs."""
    return any("restic" in line for line in of_root(sublet))


def test_cancelled_and_gone_on_with(idle: Sublet) -> None:
    backup_id = backup_of_nothing(idle)
    before = stored(idle)
    command = slow_backup(idle, "cancelled")
    os.killpg(command.pid, signal.SIGINT)
    command.communicate(timeout=60)
    assert command.returncode == 130
    eventually(lambda: not sends(idle), "restic ends")
    eventually(lambda: idle.ok("backups", "-q").split() == [backup_id], "it is no backup")
    eventually(lambda: not os.listdir(idle.root / "backups/locks"), "the lock is gone")
    eventually(lambda: idle("audit").code == 0, "the audit is clean")
    backup(idle, "cancelled")
    assert stored(idle) - before < 230 << 20, "what had arrived was sent again"
    idle.ok("rm", "-f", "-v", "cancelled")


def backup_of_nothing(sublet: Sublet) -> str:
    """So that the repository is there."""
    sublet.ok("create", "--name", "nothing", BASE, "true")
    found = backup(sublet, "nothing")
    sublet.ok("rm", "nothing")
    return found


def test_a_daemon_that_is_killed_goes_on(own: Sublet) -> None:
    backup_of_nothing(own)
    command = slow_backup(own, "survivor", "150m")
    own.kill_daemon()
    command.communicate(timeout=60)
    eventually(lambda: not sends(own), "restic dies with it")

    def complete() -> bool:
        rows = own.json("backups", "survivor", "--json")
        return [row["complete"] for row in rows] == [True]

    eventually(complete, "the new daemon completes it", 120)
    assert own.json("audit", "--json") == []
    kept = own.ok("backups", "survivor", "-q")
    digest = own.ok("exec", "survivor", "sha256sum", "/data/a")
    own.ok("rm", "-f", "-v", "survivor")
    own.ok("restore", kept)
    assert own.ok("exec", "survivor", "sha256sum", "/data/a") == digest
    own.ok("rm", "-f", "-v", "survivor")


def test_a_copy_of_a_repository_is_another_one(idle: Sublet, tmp_path: Path) -> None:
    """What is removed there is here still, and needs no trust."""
    idle.ok("create", "--name", "twice", BASE, "true")
    kept = backup(idle, "twice")
    shutil.copytree(idle.root / "backups", tmp_path / "copy")
    idle.ok("backup", "rm", kept, "--repo", str(tmp_path / "copy"))
    assert idle.ok("backups", "--repo", str(tmp_path / "copy"), "-q") == ""
    with sqlite3.connect(idle.root / "sublet.db") as database:
        count = database.execute("SELECT count(*) FROM backups WHERE id = ?", (kept,)).fetchone()
    assert count == (1,)
    assert kept in idle.ok("backups", "-q").split()
    idle.ok("rm", "twice")


def test_killed_after_all_has_arrived(own: Sublet) -> None:
    """The daemon that sent it did not live to note that: it is not sent, or listed, twice."""
    kept = backup_of_nothing(own)
    size = row_of(own, kept)["size"]
    own.kill_daemon()
    with sqlite3.connect(own.root / "sublet.db") as database:
        database.execute(
            "UPDATE backups SET complete = 0, staged = 1, snapshot = '', size = 0 WHERE id = ?",
            (kept,),
        )
    rows = own.json("backups", "--json")
    assert [(row["id"], row["complete"], row["size"]) for row in rows] == [(kept, True, size)]

    def noted() -> bool:
        with sqlite3.connect(own.root / "sublet.db") as database:
            query = "SELECT complete, staged, size FROM backups"
            return database.execute(query).fetchall() == [(1, 0, size)]

    eventually(noted, "the new daemon finds it", 60)
    listed = restic(own, own.root / "backups", "snapshots", "--json", cwd=own.root)
    assert len(json.loads(listed)) == 1
    assert own.json("audit", "--json") == []
