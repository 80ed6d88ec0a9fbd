"""The round trip: a database under write load on spot is told, backed up, reclaimed, and back.

Every row that it had confirmed before its files were copied is there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually
from marketlab import IMAGE, LOOP, comes, events, late, small_host
from test_fork_database import EXAMPLE, PSQL, WRITER, check, committed

NOTICE = 120.0
"""Seconds, as tenants really get them."""


@pytest.fixture(scope="module")
def shop(base_file: Path) -> Iterator[Sublet]:
    with small_host(SUBLET_NOTICE=f"{NOTICE:g}s", SUBLET_DEFAULT_SIZE="0.5x0.25") as sublet:
        sublet.ok("import", str(base_file), "--trust", "-t", BASE)
        sublet.ok("build", str(EXAMPLE), "-t", "postgres", timeout=900)
        yield sublet


def answers(sublet: Sublet, name: str) -> None:
    eventually(
        lambda: sublet("exec", name, *PSQL, "select 1").code == 0, "the database answers", 120
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("action", ["terminate", "stop"])
def test_every_committed_row(shop: Sublet, action: str, tmp_path: Path) -> None:
    name = f"db-{action}"
    persistent = ("--persistent",) if action == "stop" else ()
    shop.ok(
        *("run", "-d", "--name", name, "--spot", "--on-reclaim", action, *persistent),
        *("--backup", "on-notice", "-v", "/var/lib/postgresql/data", "-m", "1g"),
        *("-e", "POSTGRES_HOST_AUTH_METHOD=trust", "postgres"),
    )
    answers(shop, name)
    shop.ok("exec", name, *PSQL, "create table t (i int primary key, x text)")
    shop.ok("backup", name)  # as regular ones do: what is sent at the notice is the difference
    told = tmp_path / "committed"
    with told.open("w") as output:
        writer = shop.spawn("exec", name, "sh", "-c", WRITER, stdout=output)
    try:
        eventually(lambda: committed(told) > 20, "rows are written", 120)
        other = shop.spawn("run", "-d", "--name", "other", "-m", "1536m", IMAGE, *LOOP)
        eventually(lambda: len(events(shop, "notice", name)) == 1, "the notice")
        before = committed(told)
        eventually(lambda: len(events(shop, "backup.copied", name)) == 2, "its files are copied")
        after = committed(told)
        eventually(lambda: len(events(shop, "backup.completed", name)) == 2, "the backup", NOTICE)
        _, said = other.communicate(timeout=NOTICE + 30)
        assert other.returncode == 0, said  # who needed the room has it
        assert 0 <= late(shop, name) < 1
    finally:
        ended(writer)
    shop.ok("rm", "-f", "other")
    kept = shop.ok("backups", name, "-q").split()[0]
    if action == "stop":  # its own disk is there still, and it comes back by itself
        comes(shop, name, "running", 120)
        answers(shop, name)
        shop.ok("rm", "-f", "-v", name)
    comes(shop, name, "gone")
    shop.ok("restore", kept)
    assert shop.json("inspect", name)["market"] == "spot"
    check(shop, name, before, after)
    shop.ok("rm", "-f", "-v", name)


def ended(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=60)
