"""`sublet db`: a database that is filled, looked at, and gone."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet, eventually

pytestmark = pytest.mark.timeout(900)  # the images are built

POSTGRES, REDIS = "postgres:15", "redis:7"
DUMP = "CREATE TABLE people (name text);\nINSERT INTO people VALUES ('Ada'), ('Grace');\n"


@pytest.fixture(scope="module", autouse=True)
def _databases(shared: Sublet) -> None:
    """Both images of the catalogue, built once."""
    for name in (POSTGRES, REDIS):
        shared.ok("pull", name, timeout=600)


def people(url: str) -> list[str]:
    query = ["psql", "-XAtc", "TABLE people", url]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.split()


def test_a_database_until_it_is_interrupted(sublet: Sublet, tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text(DUMP)
    with sublet.spawn("db", POSTGRES, "--load", str(tmp_path / "dump.sql")) as process:
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert people(url) == ["Ada", "Grace"]
        assert f"psql {url}" in iter(lambda: process.stderr.readline().strip(), None)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert sublet.json("ps", "-a", "--json") == []


def test_a_database_in_the_background(sublet: Sublet, tmp_path: Path) -> None:
    """From standard input, compressed; published at a port of loopback; and dumped and loaded in
    PostgreSQL's own format."""
    (tmp_path / "dump.sql.gz").write_bytes(gzip.compress(DUMP.encode()))
    flags = ("-d", "--ttl", "5m", "--name", "mine", "-p", "0")
    done = sublet("db", POSTGRES, *flags, "--load", str(tmp_path / "dump.sql.gz"))
    instance, url = done.out.split()
    assert "It is deleted after 5m, or: sublet rm -f mine" in done.err
    found = sublet.json("inspect", "mine")
    assert (found["id"], found["ttl"], found["lease"]) == (instance, 300, None)
    assert people(url) == ["Ada", "Grace"]
    (port,) = found["ports"]
    assert port["host_ip"] == "127.0.0.1"
    assert people(f"postgresql://postgres:postgres@127.0.0.1:{port['host_port']}") == people(url)
    custom = tmp_path / "custom.dump"
    subprocess.run(["pg_dump", "-Fc", "-f", str(custom), url], check=True, timeout=30)
    told = json.loads(sublet.ok("db", POSTGRES, "-d", "--json", "--load", str(custom)))
    assert people(told["url"]) == ["Ada", "Grace"]
    assert (told["port"], told["connect"]) == (5432, f"psql {told['url']}")


@pytest.mark.parametrize("flags", [(), ("-d",)])
def test_a_dump_that_fails(sublet: Sublet, tmp_path: Path, flags: tuple[str, ...]) -> None:
    outcome = sublet("db", POSTGRES, *flags, "--load", "-", input=f"{DUMP}selekt 1;\n{DUMP * 9}")
    assert (outcome.code, outcome.out) == (1, "")
    assert 'syntax error at or near "selekt"' in outcome.err
    assert "not all is loaded" in outcome.err
    assert sublet.json("ps", "-a", "--json") == []
    (tmp_path / "cut.sql.gz").write_bytes(gzip.compress(DUMP.encode())[:-9])
    cut = ("--load", str(tmp_path / "cut.sql.gz"))
    refused(sublet, "db", POSTGRES, *flags, *cut, code=1, says="cut off")


def test_what_takes_no_dump(sublet: Sublet) -> None:
    """It is refused before it is started; what the catalogue has, before it is built."""
    outcome = refused(sublet, "db", REDIS, "--load", "/dev/null", code=1, says="no way to load")
    assert "healthy" not in outcome.err
    refused(sublet, "db", "valkey:8", "--load", "/dev/null", code=1, says="a dump into valkey")
    assert "valkey" not in sublet.ok("images")
    assert sublet("db", REDIS, "--load", "/nowhere").code == 1


def test_a_database_that_ends_by_itself(sublet: Sublet) -> None:
    with sublet.spawn("db", "--name", "short", REDIS) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("redis://")
        sublet.ok("stop", "short")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "redis has ended with" in err
    eventually(lambda: sublet.json("ps", "-a", "--json") == [], "it is gone")
