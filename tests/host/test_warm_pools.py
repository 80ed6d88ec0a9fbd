"""Warm pools: sandboxes that are ready, and whose they are, whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually
from marketlab import IMAGE, LOOP, events, small_host, spot, states

from sublet.domain.errors import SubletError
from sublet.sdk import Client, Sandbox

SMALL = ("--instance-size", "0.25x0.25")
LIKE = {"size": "0.25x0.25"}


@pytest.fixture(scope="module")
def own() -> Iterator[Sublet]:
    with small_host() as sublet:
        yield sublet


@pytest.fixture
def host(own: Sublet) -> Iterator[Sublet]:
    yield own
    if names := own.ok("pool", "ls", "-q").split():
        own.ok("pool", "rm", *names)
    own.clean()


def socket(sublet: Sublet) -> str:
    return str(sublet.run_dir / "sublet.sock")


def pool(sublet: Sublet, name: str) -> dict[str, Any]:
    return next(row for row in sublet.json("pool", "ls", "--json") if row["name"] == name)


def filled(sublet: Sublet, name: str, count: int) -> None:
    client = Client(socket(sublet))

    def ready() -> bool:
        return [row["ready"] for row in client.pools() if row["name"] == name] == [count]

    eventually(ready, client.pools)


def waiting(sublet: Sublet) -> set[str]:
    return {row["id"] for row in sublet.json("ps", "-a", "--json") if row["pooled"]}


def states_by_id(sublet: Sublet) -> dict[str, str]:
    return {row["id"]: row["state"] for row in sublet.json("ps", "-a", "--json")}


def test_from_the_pool_into_somebody_s_hands(sublet: Sublet) -> None:
    name = sublet.ok("pool", BASE, "--size", "2", *SMALL)
    try:
        filled(sublet, name, 2)
        ready = waiting(sublet)
        assert sublet.ok("ps", "-q") == "", "nobody's business"
        assert "running (pooled)" in sublet.ok("ps", "-a")
        more: dict[str, Any] = {"socket": socket(sublet), **LIKE}
        box = Sandbox.create(
            BASE, name="mine", labels={"a": "b"}, env={"X": "y"}, ttl="30m", **more
        )
        with box:
            assert box.id in ready
            row = sublet.json("inspect", "mine")
            assert row["labels"] == {"a": "b", "io.sublet.sandbox": "1"}
            assert (row["name"], row["pooled"], row["ttl"]) == ("mine", False, 1800.0)
            assert box.exec("echo $X").stdout == "y\n"
            assert "mine" in sublet.ok("ps")
            with Sandbox.create(BASE, **more) as other:
                eventually(
                    lambda: other.exec("getent hosts mine").exit_code == 0, "the name is known"
                )
            with Sandbox.create(BASE, egress="none", **more) as cold:
                assert cold.id not in ready
            filled(sublet, name, 2)
            assert sublet.ok("pool", BASE, "--size", "1", *SMALL) == name, "resized"
            eventually(lambda: len(waiting(sublet)) == 1, "one is let go")
            sublet.ok("pool", "rm", name)
            eventually(lambda: waiting(sublet) == set(), "all are let go")
            assert box.exec("true").exit_code == 0
            eventually(lambda: sublet("audit").code == 0, "the audit is clean")
        refused(sublet, "pool", "rm", name, code=1, says="no pool")
    finally:
        sublet("pool", "rm", name)


def test_many_at_once_get_one_each(host: Sublet) -> None:
    host.ok("pool", IMAGE, "--size", "3", "--name", "p", *SMALL)
    filled(host, "p", 3)
    ready = waiting(host)
    with ThreadPoolExecutor(6) as threads:
        boxes = list(
            threads.map(lambda _: Sandbox.create(IMAGE, socket=socket(host), **LIKE), range(6))
        )
    assert len({box.id for box in boxes}) == 6
    assert ready <= {box.id for box in boxes}
    for box in boxes:
        box.close()
    filled(host, "p", 3)
    ready = waiting(host)
    assert Sandbox.create(IMAGE, ttl=1, socket=socket(host), **LIKE).id in ready
    eventually(lambda: waiting(host) == set(states_by_id(host)), "it has expired")


def test_the_dead_are_replaced_and_so_is_an_older_image(host: Sublet) -> None:
    host.ok("tag", IMAGE, "moving:1")
    host.ok("pool", "moving:1", "--size", "1", "--name", "p", *SMALL)
    filled(host, "p", 1)
    (first,) = waiting(host)
    os.kill(host.json("inspect", first)["pid"], signal.SIGKILL)
    eventually(lambda: waiting(host) and first not in waiting(host), "another one")
    filled(host, "p", 1)
    (second,) = waiting(host)
    host.ok("run", "--name", "changed", IMAGE, "sh", "-c", "echo new > /new")
    host.ok("commit", "changed", "moving:1")
    with Sandbox.create("moving:1", socket=socket(host), **LIKE) as box:
        assert box.id != second, "its image is not what the name means now"
        assert box.files.read_text("/new") == "new\n"
    eventually(lambda: second not in waiting(host), "the older one goes")
    filled(host, "p", 1)
    host.ok("pool", "rm", "p")
    host.ok("rm", "changed")
    host.ok("rmi", "moving:1")


def test_a_daemon_that_is_killed_has_its_pool_again(host: Sublet) -> None:
    host.ok("pool", IMAGE, "--size", "2", "--name", "p", *SMALL)
    filled(host, "p", 2)
    before = waiting(host)
    box = Sandbox.create(IMAGE, name="mine", socket=socket(host), **LIKE)
    host.kill_daemon()
    assert host.json("inspect", "mine")["id"] == box.id
    filled(host, "p", 2)
    assert before - {box.id} <= waiting(host), "adopted"
    assert box.id not in waiting(host)
    assert box.exec("echo here").stdout == "here\n"
    box.close()


def test_a_daemon_that_is_killed_while_it_hands_out(host: Sublet) -> None:
    host.ok("pool", IMAGE, "--size", "4", "--name", "p", *SMALL)
    filled(host, "p", 4)
    got: list[str] = []

    def ask() -> None:
        with suppress(SubletError):  # the connection is lost
            while len(got) < 2:  # with what the pool holds then, the host is full at most
                got.append(Sandbox.create(IMAGE, socket=socket(host), **LIKE).id)

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        eventually(lambda: got, "the first one")
        host.kill_daemon()
        for each in asking:
            each.result()
    host.daemon_pid()  # another one is up
    filled(host, "p", 4)
    assert len(set(got)) == len(got)
    assert not set(got) & waiting(host)
    for instance_id in got:
        assert host.ok("exec", instance_id, "echo", "here") == "here"


def test_its_room_is_that_of_who_starts_on_demand(host: Sublet) -> None:
    spot(host, "spot", memory="512m")
    host.ok("pool", IMAGE, "--size", "6", "--name", "p", "--instance-size", "0.25x0.25")
    filled(host, "p", 6)
    host.ok("run", "-d", "--no-wait", "--name", "od", "-m", "512m", IMAGE, *LOOP)
    eventually(lambda: pool(host, "p")["ready"] == 4, "two are let go")
    eventually(lambda: pool(host, "p")["trouble"] == "the host has no room", "it says why")
    assert host.json("market", "--json")["used"] == 0.25, "what waits makes spot no dearer"
    assert host.json("inspect", "spot")["notice"] is None, "nobody has notice while some are ready"
    made = host("run", "-d", "--name", "large", "-m", "1536m", IMAGE, *LOOP)
    assert made.code == 0, made
    eventually(lambda: pool(host, "p")["ready"] == 0, "none is left")
    eventually(lambda: set(states(host)) == {"od", "large"}, "all of the pool, then spot")
    assert len(events(host, "notice", "spot")) == 1
    host.ok("rm", "-f", "od", "large")
    filled(host, "p", 6)
    refused(host, "run", "-d", "-m", "3g", IMAGE, *LOOP, says="free")
    assert pool(host, "p")["ready"] == 6, "where all would not be enough none goes"


def test_an_image_that_is_not_here(host: Sublet) -> None:
    refused(host, "pool", "sha256:" + "0" * 64, "--size", "1", code=1, says="image")
    refused(host, "pool", IMAGE, "--size", "-1", code=1, says="size")


@pytest.mark.slow
def test_machines_have_an_identity_of_their_own(sublet: Sublet) -> None:
    name = sublet.ok("pool", BASE, "--vm", "--size", "2")
    try:
        client = Client(socket(sublet))
        eventually(lambda: client.pools()[0]["ready"] == 2, client.pools, 180.0)
        ready = waiting(sublet)
        more: dict[str, Any] = {"isolation": "vm", "socket": socket(sublet)}
        with Sandbox.create(BASE, name="one", **more) as one, Sandbox.create(BASE, **more) as two:
            assert {one.id, two.id} == ready
            seen = [
                box.exec(
                    "hostname; cat /proc/sys/kernel/random/boot_id; cat /sys/class/net/*/address"
                ).stdout
                for box in (one, two)
            ]
            assert [text.splitlines()[0] for text in seen] == [one.id, two.id]
            eventually(lambda: two.exec("getent hosts one").exit_code == 0, "its name is known")
            sublet.ok("pool", "rm", name)
            assert one.exec("true").exit_code == 0
    finally:
        sublet("pool", "rm", name)
