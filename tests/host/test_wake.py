"""Instances that a connection wakes: who connects once, with a plain connect, is answered."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet, ended, eventually
from imagelab import free_port
from netlab import World
from vmhost import IMAGE, SMALL, count, daemon

RUN = ("run", "-d", "--stop-timeout", "0s")
SCRIPT = (
    "mkdir -p /www/cgi-bin; cd /www/cgi-bin; "
    "printf '#!/bin/sh\\necho; echo from $REMOTE_ADDR' >me; chmod +x me; "
)
SERVE = ("sh", "-c", f"{SCRIPT} exec httpd -f -p 80 -h /www")
"""A web server that tells everybody his address."""


class Outside(World):
    """Another machine, which knows this one alone."""

    host, address = "198.18.7.1", "198.18.7.2"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    world = Outside(tmp_path, f"wk{os.getpid()}")
    yield world
    world.close()


@pytest.fixture
def own(busybox_file: Path) -> Iterator[Sublet]:
    """A daemon that a test may kill."""
    with daemon(busybox_file) as sublet:
        yield sublet


def state(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["state"])


def events(sublet: Sublet, name: str, event: str) -> list[dict[str, str]]:
    instance = sublet.json("inspect", name)["id"]
    filters = ("--filter", f"event={event}", "--filter", f"instance={instance}")
    return [row["detail"] for row in sublet.json("events", *filters, "--json")]


def asleep(sublet: Sublet, name: str, *flags: str, command: tuple[str, ...] = SERVE) -> int:
    """A container that serves a port, stopped; the port."""
    port = free_port()
    sublet.ok(*RUN, "--name", name, "--wake", "-p", f"{port}:80", *flags, IMAGE, *command)
    sublet.ok("stop", name)
    sleeps(sublet, name)
    return port


def sleeps(sublet: Sublet, name: str) -> None:
    """Wait until a connection would wake it."""
    eventually(lambda: sublet.json("inspect", name)["wake"]["asleep"], f"{name} is asleep")


def ask(port: int, address: str = "127.0.0.1", sock: socket.socket | None = None) -> str:
    """The address that the server sees one connection come from; it is waited for patiently."""
    with sock or socket.socket() as client:
        client.settimeout(40)
        client.connect((address, port))
        client.sendall(b"GET /cgi-bin/me HTTP/1.0\r\n\r\n")
        return seen(client)


def serves(port: int) -> bool:
    """Whether it listens by now."""
    try:
        return bool(ask(port))
    except OSError:
        return False


def seen(client: socket.socket) -> str:
    """The address in an answer."""
    with client.makefile("rb") as stream:
        return stream.read().rpartition(b"from ")[2].decode().strip("[]\n").removeprefix("::ffff:")


def test_who_is_idle_sleeps_and_wakes_for_another_machine(vm: Sublet, outside: Outside) -> None:
    port = free_port()
    flags = ("--idle", "6s", "--wake", "-p", f"{port}:80")
    vm.ok(*RUN, "--name", "web", *flags, IMAGE, *SERVE)
    eventually(lambda: state(vm, "web") == "stopped", "idle")
    sleeps(vm, "web")
    assert ask(port, outside.host, outside.socket()) == outside.address
    assert state(vm, "web") == "running"
    (woken,) = events(vm, "web", "woken")
    assert woken["by"] == f"{outside.address} to tcp {port}"
    assert ask(port, outside.host, outside.socket()) == outside.address
    eventually(lambda: state(vm, "web") == "stopped", "idle again")
    assert ask(port)  # the host itself


def test_another_instance_wakes_it(vm: Sublet, outside: Outside) -> None:
    port = asleep(vm, "web")
    url = f"http://{outside.host}:{port}/cgi-bin/me"
    assert "from " in vm.ok("run", "--rm", IMAGE, "wget", "-q", "-O", "-", url, timeout=40)
    assert state(vm, "web") == "running"


def test_a_datagram_wakes_it(vm: Sublet, outside: Outside) -> None:
    port = free_port()
    vm.ok(*RUN, "--name", "dns", "--wake", "-p", f"{port}:53/udp", IMAGE, "sleep", "600")
    vm.ok("stop", "-t", "0", "dns")
    sleeps(vm, "dns")
    with outside.socket(socket.SOCK_DGRAM) as client:
        client.sendto(b"?", (outside.host, port))
    eventually(lambda: state(vm, "dns") == "running", "woken")


def test_its_port_is_held(vm: Sublet) -> None:
    port = asleep(vm, "web")
    refused(vm, "run", "-d", "-p", f"{port}:80", IMAGE, "true", says="in use")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("0.0.0.0", port))
    vm.ok("update", "--no-wake", "web")
    eventually(lambda: _free(port), "the port is free")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    vm.ok("update", "--wake", "web")
    eventually(lambda: not _free(port), "the port is held")
    assert ask(port)
    vm.ok("stop", "web")
    vm.ok("rm", "web")
    eventually(lambda: _free(port), "the port is free again")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def test_a_port_of_loopback_alone_wakes_for_the_host_alone(vm: Sublet, outside: Outside) -> None:
    port = free_port()
    publish = f"127.0.0.1:{port}:80"
    vm.ok(*RUN, "--name", "own", "--wake", "-p", publish, IMAGE, *SERVE)
    vm.ok("stop", "own")
    sleeps(vm, "own")
    with pytest.raises(ConnectionRefusedError):
        ask(port, outside.host, outside.socket())
    assert vm.json("inspect", "own")["wake"]["asleep"]
    assert ask(port)


def test_many_that_come_at_once_wake_it_once(vm: Sublet) -> None:
    port = asleep(vm, "web")
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: ask(port), range(30)))
    assert all(answers)
    assert len(events(vm, "web", "woken")) == 1


def test_without_room_it_stays_asleep_until_there_is_some(vm: Sublet) -> None:
    port = asleep(vm, "web")
    free = vm.json("host", "--json")["free"]["memory"]
    vm.ok(*RUN, "--name", "big", "-m", str(free - (1 << 20)), IMAGE, "sleep", "600")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port)
        eventually(lambda: events(vm, "web", "wake-failed"), "a failure")
        found = vm.json("inspect", "web")
        assert found["wake"]["asleep"]
        assert "memory" in found["wake"]["error"]
        vm.ok("rm", "-f", "big")
        assert answer.result(60)
    awake = {"asleep": False, "failures": 0, "error": None}
    eventually(lambda: vm.json("inspect", "web")["wake"] == awake, "it is awake")


def test_rules_that_others_removed_come_back(vm: Sublet, outside: Outside) -> None:
    port = asleep(vm, "web")
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    mine = next(t.split()[2] for t in tables.stdout.splitlines() if _is_of(t, port))
    subprocess.run(["nft", "delete", "table", "inet", mine], check=True)
    assert ask(port, outside.host, outside.socket())


def _is_of(line: str, port: int) -> bool:
    argv = ["nft", "list", "table", *line.split()[1:]]
    found = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return f"tcp . {port} comment" in found


def test_it_wakes_by_the_next_daemon_where_one_was_killed(own: Sublet, outside: Outside) -> None:
    port = asleep(own, "web")
    own.kill_daemon()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port, outside.host, outside.socket())
        time.sleep(0.5)
        assert not answer.done()  # it is not refused
        own.ok("ps")
        assert answer.result(60)
    own.ok("stop", "web")
    sleeps(own, "web")
    own.ok("daemon", "--stop")
    own.ok("ps")
    assert ask(port)


def test_a_daemon_that_dies_while_it_wakes_is_made_good(own: Sublet) -> None:
    port = asleep(own, "web")
    own.ok("daemon", "--stop")
    frail = replace(own, extra={**own.extra, "SUBLET_FAULT": "start/root:before"})
    dying = frail.daemon_pid()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port)
        eventually(lambda: ended(dying), "the daemon has died")
        own.ok("ps")  # the next daemon
        assert answer.result(60)


def test_what_is_refused(vm: Sublet) -> None:
    refused(vm, "run", "-d", "--wake", IMAGE, "true", says="has none")
    refused(vm, "run", "-d", "--rm", "--wake", "-p", "80", IMAGE, "true", says="--rm")


def test_a_vm_that_hibernates_when_idle_answers_slowly_once(vm: Sublet, outside: Outside) -> None:
    port = free_port()
    script = "(i=0; while :; do i=$((i+1)); echo $i >/dev/shm/count; sleep 1; done) & "
    flags = ("--idle", "4s", "--idle-action", "hibernate", "--wake", "-p", f"{port}:80")
    serve = ("sh", "-c", f"{script}{SCRIPT} exec httpd -f -p 80 -h /www")
    vm.ok(*RUN, "--name", "box", *SMALL, *flags, IMAGE, *serve)
    eventually(lambda: serves(port), "it serves")
    with outside.socket() as pooled:  # a connection that stays while it sleeps
        pooled.settimeout(40)
        pooled.connect((outside.host, port))
        pooled.sendall(b"GET /cgi-bin/me HTTP/1.0\r\n")
        eventually(lambda: state(vm, "box") == "hibernated", "idle", 90)
        before = time.monotonic()
        assert ask(port, outside.host, outside.socket()) == outside.address
        print(f"a new connection was answered after {time.monotonic() - before:.2f} s")
        assert count(vm, "box") > 1
        eventually(lambda: state(vm, "box") == "hibernated", "idle again", 90)
        before = time.monotonic()
        pooled.sendall(b"\r\n")
        assert seen(pooled) == outside.address
        print(f"an old connection was answered after {time.monotonic() - before:.2f} s")
