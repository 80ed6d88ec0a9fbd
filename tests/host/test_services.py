"""`sublet with` and the SDK's services: real databases, real clients, and whatever ends them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually

from sublet.domain.errors import NotHealthy
from sublet.sdk import AsyncClient, Client

pytestmark = pytest.mark.timeout(900)  # the images are built

POSTGRES, REDIS = "postgres:15", "redis:7"


@pytest.fixture(scope="module", autouse=True)
def _databases(shared: Sublet) -> None:
    """Both images of the catalogue, built once."""
    for name in (POSTGRES, REDIS):
        shared.ok("pull", name, timeout=600)


def gone(sublet: Sublet) -> bool:
    return sublet.json("ps", "-a", "--json") == []


def test_a_command_has_its_databases(sublet: Sublet) -> None:
    script = """
        psql -XAtc 'CREATE TABLE t (n int); INSERT INTO t VALUES (42); TABLE t' "$DATABASE_URL"
        test "$POSTGRES_URL" = "$DATABASE_URL" || exit 1
        exec 3<>"/dev/tcp/$CACHE_HOST/$CACHE_PORT"
        printf 'SET a 7\\r\\nGET a\\r\\n' >&3; head -n 3 <&3
        echo "$CACHE_URL"
        exit 7
    """
    outcome = sublet("with", POSTGRES, f"cache={REDIS}", "--", "bash", "-c", script)
    assert outcome.code == 7, outcome
    lines = outcome.out.split()
    assert lines[-5:-1] == ["42", "+OK", "$1", "7"]
    assert lines[-1].startswith("redis://10.")
    assert "postgres: healthy after" in outcome.err
    assert "cache: healthy after" in outcome.err
    assert gone(sublet)


def test_what_the_command_cannot_be(sublet: Sublet, tmp_path: Path) -> None:
    outcome = sublet("with", REDIS, "--", str(tmp_path / "nothing"))
    assert (outcome.code, "no command" in outcome.err) == (127, True)
    (tmp_path / "text").write_text("no program")
    for name in (tmp_path, tmp_path / "text"):
        outcome = sublet("with", REDIS, "--", str(name))
        assert (outcome.code, "cannot be executed" in outcome.err) == (126, True)
        assert "healthy" not in outcome.err, "it is found before anything starts"
    assert sublet("with", REDIS, "--", "sh", "-c", "kill -USR1 $$").code == 138
    refused(sublet, "with", REDIS, says="no command")
    refused(sublet, "with", "--", "true", says="no service")
    refused(sublet, "with", REDIS, "redis:8", "--", "true", says="REDIS_HOST")
    refused(sublet, "with", "-e", "rdis:A=1", REDIS, "--", "true", says="'rdis'")
    assert sublet("with", "--sice", "2x4", REDIS, "--", "true").code == 125


def test_settings_reach_the_service(sublet: Sublet) -> None:
    flags = ("-e", "postgres:POSTGRES_DB=app", "-e", "POSTGRES_PASSWORD=it's a/b")
    query = ("psql", "-XAtc", "SELECT current_database()")
    script = f'exec {" ".join(query[:2])} "{query[2]}" "$POSTGRES_URL"'
    outcome = sublet("with", *flags, POSTGRES, "--", "sh", "-c", script)
    assert (outcome.code, outcome.out) == (0, "app\n"), outcome


@pytest.fixture
def image(sublet: Sublet) -> Iterator[Callable[[str], str]]:
    """Makes images without a health check that expose ports and run a shell's command."""
    names: list[str] = []

    def make(command: str) -> str:
        names.append(f"made:{len(names)}")
        changes = ("-c", "EXPOSE 81/udp 80/tcp", "-c", f"CMD {command}")
        sublet.ok("commit", *changes, "origin", names[-1])
        return names[-1]

    sublet.ok("create", "--name", "origin", BASE)
    yield make
    sublet.ok("rm", "origin")
    sublet.ok("rmi", *names)


def test_a_service_that_does_not_start_says_why(
    sublet: Sublet, image: Callable[[str], str]
) -> None:
    ending = image("echo no disk >&2; exit 3")
    outcome = refused(sublet, "with", ending, "--", "echo", "never", says="ended with 3")
    assert "no disk" in outcome.err
    silent = image("echo hello; sleep 600")
    flags = ("--timeout", "6s", silent)
    outcome = refused(sublet, "with", *flags, "--", "true", says="not healthy after 6")
    assert "hello" in outcome.err


def test_without_a_health_check_its_port_counts(
    sublet: Sublet, image: Callable[[str], str]
) -> None:
    listening = "IO::Socket::INET->new(LocalPort => 80, Listen => 1)->accept->print(q(hi))"
    name = image(f"sleep 0.3; perl -MIO::Socket::INET -e 'sleep 9 while {listening}'")
    script = "cat <>/dev/tcp/$MADE_HOST/$MADE_PORT; test -z $MADE_URL$DATABASE_URL"
    outcome = sublet("with", name, "--", "bash", "-c", script)
    assert outcome.code == 0, outcome


def test_a_health_check_that_fails_is_shown(sublet: Sublet, image: Callable[[str], str]) -> None:
    name, checked = image("echo starting; sleep 600"), "checked:1"
    check = 'HEALTHCHECK --interval=1s --retries=1 CMD echo "no config"; exit 4'
    sublet.ok("create", "--name", "plain", name)
    sublet.ok("commit", "-c", check, "plain", checked)
    outcome = refused(sublet, "with", checked, "--", "echo", "never", says="is unhealthy")
    assert "Its last health check ended with 4:\n        no config\n" in outcome.err
    assert "It wrote:\n        starting\n" in outcome.err
    sublet.ok("rm", "plain")
    sublet.ok("rmi", checked)


def test_what_tells_nothing_of_itself_is_started(sublet: Sublet) -> None:
    sublet.ok("create", "--name", "quiet", BASE)
    sublet.ok("commit", "-c", "CMD sleep 600", "quiet", "quiet:1")
    outcome = sublet("with", "quiet:1", "--", "true")
    assert outcome.code == 0, outcome
    assert "quiet: started after" in outcome.err
    assert "healthy" not in outcome.err
    sublet.ok("rm", "quiet")
    sublet.ok("rmi", "quiet:1")


def test_a_terminal_s_interrupt_comes_once(sublet: Sublet) -> None:
    """Ctrl-C reaches the command by the terminal; nothing is left of the services."""
    script = "n=0; trap 'n=$((n+1)); echo got $n' INT; trap 'exit $n' TERM; echo ready; "
    script += "while :; do sleep 0.1; done"
    main, child = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "sublet", "with", REDIS, "--", "bash", "-c", script],
        env=sublet.env,
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    seen = b""

    def see(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(main, 1024)

    see(b"ready")
    os.write(main, b"\x03")
    see(b"got 1")
    process.terminate()
    assert process.wait(60) == 1
    os.close(main)
    assert b"got 2" not in seen
    assert gone(sublet)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_starts(sublet: Sublet, number: int) -> None:
    code = ("with", f"a={REDIS}", f"b={REDIS}", POSTGRES, "--", "sleep", "600")
    with sublet.spawn(*code) as process:
        eventually(lambda: not gone(sublet), "one is there")
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    eventually(lambda: gone(sublet), "all are gone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_while_it_waits_for_health(
    sublet: Sublet, image: Callable[[str], str], number: int
) -> None:
    name = image("sleep 600")
    with sublet.spawn("with", "--timeout", "10m", name, "--", "true") as process:
        eventually(lambda: bool(sublet.json("ps", "--json")), "it runs")
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    eventually(lambda: len(sublet.json("ps", "-a", "--json")) == 1, "it is gone, the origin stays")


def test_killed_while_the_command_runs(sublet: Sublet) -> None:
    """kill -9 of ours: the daemon deletes the services, and the command lives on alone."""
    with sublet.spawn("with", REDIS, POSTGRES, "--", "sh", "-c", "echo $$; exec sleep 600") as ours:
        assert ours.stdout
        command = int(ours.stdout.readline())
        assert len(sublet.json("ps", "--json")) == 2
        ours.kill()
        eventually(lambda: gone(sublet), "the services are gone")
        os.kill(command, signal.SIGKILL)


def test_what_happens_to_services_is_said(sublet: Sublet) -> None:
    script = 'sublet rm -f "$(sublet ps -q)"; read line'
    with sublet.spawn("with", REDIS, "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        said = next(line for line in lines if "gone" in line or "ended" in line)
        assert said.startswith("sublet: redis ")
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


def test_services_may_stay(sublet: Sublet) -> None:
    outcome = sublet("with", "--keep", REDIS, "--", "false")
    assert (outcome.code, "sublet rm -f" in outcome.err) == (1, True)
    (kept,) = sublet.json("ps", "--json")
    assert sublet.json("inspect", kept["id"])["ttl"] == 3600


def test_services_in_python(sublet: Sublet) -> None:
    client = Client(str(sublet.run_dir / "sublet.sock"))
    with client.services([POSTGRES, f"cache={REDIS}"]) as services:
        assert services["cache"].url == services.environment["CACHE_URL"]
        done = services["cache"].instance.exec(["redis-cli", "ping"])
        assert done.stdout == "PONG\n"
        assert (services["postgres"].port, services["postgres"].kind) == (5432, "postgres")
        assert [each.name for each in services] == ["postgres", "cache"]
    assert gone(sublet)


async def test_services_in_asyncio(sublet: Sublet) -> None:
    client = AsyncClient(str(sublet.run_dir / "sublet.sock"))
    async with client.services([REDIS]) as services:
        assert services["redis"].host
        assert len(await client.ps()) == 1
    with pytest.raises(NotHealthy):
        async with client.services([REDIS], timeout=0):
            pass
    assert gone(sublet)
