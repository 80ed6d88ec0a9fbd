"""The catalogue: images built by their short names, and reached by real clients."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from clilab import context, refused
from conftest import Sublet, eventually

pytestmark = pytest.mark.timeout(900)  # images are built

MINUTES = 900.0
"""Seconds that building an image may take on a busy machine."""


def started(sublet: Sublet, name: str, image: str, *flags: str) -> str:
    """An instance that says it is healthy; its address."""
    sublet.ok("run", "-d", "--wait", "--name", name, *flags, image, timeout=MINUTES)
    found = sublet.json("inspect", name)
    assert found["health"] == "healthy"
    return str(found["address"])


def entry(sublet: Sublet, name: str) -> dict[str, Any]:
    return dict(sublet.json("catalog", "show", name, "--json"))


def psql(url: str, *commands: str) -> str:
    """What the host's own client prints."""
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["psql", url, "-AtX", *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def talk(address: str, port: int, line: bytes) -> bytes:
    """What a server answers to a line."""
    with socket.create_connection((address, port), 10) as opened:
        opened.sendall(line)
        return opened.recv(1000)


def test_a_database_by_its_short_name(sublet: Sublet, tmp_path: Path) -> None:
    address = started(sublet, "db", "postgres:15")
    url = str(entry(sublet, "postgres")["example_url"]).replace("ADDRESS", address)
    assert psql(url, "show server_version").startswith("15.")
    psql(url, "create table t as select generate_series(1, 5) n")
    fork = sublet.ok("fork", "db")
    url = url.replace(address, sublet.json("inspect", fork)["address"])
    assert psql_when_up(sublet, fork, url) == "5"
    assert f"\n# URL: {entry(sublet, 'postgres')['example_url']}\n" in sublet.ok(
        "catalog", "show", "postgres"
    )
    assert sublet("catalog", "show", "mongo").code == 1
    listed = {row["name"]: row for row in sublet.json("catalog", "ls", "--json")}
    here = {version["tag"]: version["here"] for version in listed["postgres"]["versions"]}
    assert list(here) == ["15", "17"]
    assert here["15"]
    text = "FROM postgres:15\nRUN test -x /usr/lib/postgresql/bin/initdb\n"
    sublet.ok("build", str(context(tmp_path / "ctx", text)), "-t", "upon")
    sublet.ok("rmi", "upon")
    refused(sublet, "run", "docker.io/library/postgres:15", says="docker.io")
    refused(sublet, "run", "postgres:16", says="postgres 15 (bookworm) and 17 (trixie)")
    refused(sublet, "run", "mongo:7", says="FerretDB")


def test_a_database_as_its_environment_asks(sublet: Sublet, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "1-table.sql").write_text("create table t (n int);\n")
    (scripts / "2-rows.sh").write_text("psql -qc 'insert into t values (7)'\n")
    own = {"POSTGRES_USER": "app", "POSTGRES_PASSWORD": "it's", "POSTGRES_DB": 'o"dd'}
    flags = [word for key, value in own.items() for word in ("-e", f"{key}={value}")]
    flags += ["-v", f"{scripts}:/docker-entrypoint-initdb.d:ro"]
    address = started(sublet, "db", "postgres:15", *flags)
    url = f"postgresql://app:it%27s@{address}/o%22dd"
    assert psql(url, "select n from t") == "7"
    closed = subprocess.run(
        ["psql", f"postgresql://postgres:postgres@{address}/postgres", "-c", "select 1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "password authentication failed" in closed.stderr
    sublet.ok("restart", "db")
    assert psql_when_up(sublet, "db", url) == "1"


def psql_when_up(sublet: Sublet, name: str, url: str) -> str:
    """The rows of table t, once the database is healthy again."""
    eventually(lambda: sublet.json("inspect", name)["health"] == "healthy", "healthy")
    return psql(url, "select count(*) from t")


def test_a_cache_by_its_short_name(sublet: Sublet, tmp_path: Path) -> None:
    address = started(sublet, "cache", "redis:7")
    assert talk(address, 6379, b"PING\r\n") == b"+PONG\r\n"
    packed = str(tmp_path / "redis.sif")
    sublet.ok("pack", "redis:7", "-o", packed)
    assert "v=7.0" in sublet.ok("run", "--rm", packed, "redis-server", "--version")
    assert talk(address, 6379, b"SET a 1\r\n") == b"+OK\r\n"
    sublet.ok("exec", "cache", "redis-cli", "config", "set", "requirepass", "secret")
    assert b"NOAUTH" in talk(address, 6379, b"PING\r\n")


# Every other one, by a real client


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["15", "17"])
def test_postgres(sublet: Sublet, tag: str) -> None:
    address = started(sublet, "db", f"postgres:{tag}")
    url = str(entry(sublet, "postgres")["example_url"]).replace("ADDRESS", address)
    assert psql(url, "show server_version").startswith(f"{tag}.")


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["10.11", "11.8"])
def test_mariadb(sublet: Sublet, tmp_path: Path, tag: str) -> None:
    (tmp_path / "1-table.sql").write_text("create table t (a int);\n")
    tmp_path.chmod(0o755)
    image, own = f"mariadb:{tag}", ("-e", "MARIADB_PASSWORD=it's", "-e", "MARIADB_USER=app")
    scripts = ("-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro")
    address = started(sublet, "db", image, *own, *scripts)
    client = ("run", "--rm", "-e", "MYSQL_PWD=it's", image, "mariadb", "--no-defaults")
    at = ("--host", address, "--user", "app", "mariadb", "-Ne")
    assert sublet.ok(*client, *at, "select version()").startswith(tag)
    sublet.ok(*client, *at, "insert into t values (7)")
    assert sublet.ok(*client, *at, "select * from t") == "7"


@pytest.mark.slow
@pytest.mark.parametrize("image", ["redis:8.0", "valkey:8.1"])
def test_caches(sublet: Sublet, image: str) -> None:
    address = started(sublet, "cache", image)
    client = ("run", "--rm", image, f"{image.partition(':')[0]}-cli", "-h", address)
    assert sublet.ok(*client, "ping") == "PONG"
    assert f"version:{image.partition(':')[2]}" in sublet.ok(*client, "info", "server")


AMQP = "FROM debian:bookworm\nRUN apt-get update && apt-get install -y amqp-tools\n"


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["3.10", "4.0"])
def test_rabbitmq(sublet: Sublet, tmp_path: Path, tag: str) -> None:
    sublet.ok("build", str(context(tmp_path / "ctx", AMQP)), "-t", "amqp", timeout=MINUTES)
    own = ("-e", "RABBITMQ_DEFAULT_USER=app", "-e", "RABBITMQ_DEFAULT_PASS=secret")
    address = started(sublet, "queue", f"rabbitmq:{tag}", *own)
    url = str(entry(sublet, "rabbitmq")["example_url"]).replace("ADDRESS", address)
    url = url.replace("guest:guest", "app:secret")
    client = ("run", "--rm", "amqp")
    sublet.ok(*client, "amqp-declare-queue", f"--url={url}", "-q", "work")
    sublet.ok(*client, "amqp-publish", f"--url={url}", "-r", "work", "-b", "hello")
    assert sublet.ok(*client, "amqp-get", f"--url={url}", "-q", "work") == "hello"
    assert "rabbit@localhost" in sublet.ok("exec", "queue", "rabbitmqctl", "status")


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["1.22", "1.26"])
def test_nginx(sublet: Sublet, tmp_path: Path, tag: str) -> None:
    (tmp_path / "index.html").write_text("mine\n")
    (tmp_path / "index.html").chmod(0o644)
    flags = ("-v", f"{tmp_path / 'index.html'}:/usr/share/nginx/html/index.html:ro")
    address = started(sublet, "web", f"nginx:{tag}", *flags)
    argv = ["curl", "-si", "--max-time", "20", f"http://{address}/"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    assert answer.startswith("HTTP/1.1 200 OK")
    assert answer.endswith("mine\n")
    assert f"nginx/{tag}." in sublet.ok("exec", "web", "sh", "-c", "nginx -v 2>&1")
    assert "GET / HTTP/1.1" in sublet.ok("logs", "web")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "program", "says"),
    [
        ("python:3.11", ("python", "-c", "import sys; print(sys.version)"), "3.11"),
        ("python:3.13", ("python", "-c", "import sys; print(sys.version)"), "3.13"),
        ("python:3.13-slim", ("pip", "--version"), "/opt/python/lib/python3.13"),
        ("node:18", ("node", "-p", "process.version"), "v18."),
        ("node:20", ("sh", "-c", "npm --version && node -p process.version"), "\nv20."),
        ("golang:1.19", ("go", "version"), "go1.19"),
        ("go:1.24", ("go", "version"), "go1.24"),
    ],
)
def test_languages(sublet: Sublet, image: str, program: tuple[str, ...], says: str) -> None:
    assert says in sublet.ok("run", "--rm", image, *program, timeout=MINUTES)


GO = 'package main\n\n// #include <stdlib.h>\nimport "C"\n\nfunc main() { println(C.abs(-7)) }\n'


@pytest.mark.slow
def test_go_compiles(sublet: Sublet) -> None:
    script = "cat >main.go && go run main.go"
    done = sublet("run", "--rm", "-i", "golang", "sh", "-c", script, input=GO, timeout=MINUTES)
    assert done.err.rstrip().endswith("7"), done


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["bookworm", "trixie"])
def test_dev_machine(sublet: Sublet, tmp_path: Path, tag: str) -> None:
    key = tmp_path / "key"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make, check=True, timeout=20)
    own = ("-e", f"SSH_KEY={key.with_suffix('.pub').read_text().strip()}")
    address = started(sublet, "dev", f"dev-machine:{tag}", *own)
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
    argv = ["ssh", "-i", str(key), *(word for each in options for word in ("-o", each))]
    argv += [f"dev@{address}", "git --version && gcc -dumpversion && whoami"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("dev\n"), done
    assert sublet.ok("ssh", "dev", "whoami") == "root"
