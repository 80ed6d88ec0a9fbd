"""Leases: what a client leaves when it ends, or the daemon does, whichever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import BASE, Sublet, eventually

from sublet.domain.errors import InvalidArgument, LeaseEnded
from sublet.sdk import AsyncClient, Client

HOLDER = f"""
import os, sys
from threading import Thread
from sublet.sdk import Client
client = Client()
lease = client.lease().open()

def run(name):
    return client.run({BASE!r}, ["sleep", "infinity"], name=name, lease=lease.id)

def run_many(prefix):
    for number in range(10**6):
        run(f"{{prefix}}-{{number}}")
        os.write(1, b"one\\n")

for name in sys.argv[1:]:
    run(name)
print(lease.id, flush=True)
if not sys.argv[1:]:
    for prefix in "abcd":
        Thread(target=run_many, args=[prefix]).start()
else:
    if sys.stdin.readline() == "on\\n":
        run("later")
    lease.close()
    print("closed", flush=True)
"""
"""Holds a lease: with instances of the names in its arguments, until it is told a line; or with
more and more of them."""


FORKING = f"""
import os, time
from sublet.sdk import Client
client = Client()
lease = client.lease().open()
client.run({BASE!r}, ["sleep", "infinity"], lease=lease.id)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@contextmanager
def client(sublet: Sublet, code: str, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own, and the first line that it prints; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=sublet.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


def names(sublet: Sublet) -> set[str]:
    return {row["name"] for row in sublet.json("ps", "-a", "--json")}


def test_a_lease_ends_with_its_block(sublet: Sublet) -> None:
    api = Client(str(sublet.run_dir / "sublet.sock"))
    volumes = sublet.ok("volume", "ls", "-q")
    with api.lease() as lease:
        sleep = api.run(BASE, ["sleep", "infinity"], lease=lease.id, restart="always")
        api.create(BASE, ["true"], lease=lease.id, volumes=["/data"])
        fork = api.fork_of(sleep.id)
        kept = api.run(BASE, ["sleep", "infinity"], name="kept")
        assert sublet.json("inspect", sleep.name)["lease"] == lease.id
        assert sublet.json("inspect", fork["id"])["lease"] == lease.id
        assert sublet.json("inspect", kept.id)["lease"] is None
    assert names(sublet) == {"kept"}
    assert sublet.ok("volume", "ls", "-q") == volumes
    with pytest.raises(LeaseEnded):
        api.run(BASE, ["true"], lease=lease.id)


def test_forks_may_have_another_lease_and_any_may_leave_its_own(sublet: Sublet) -> None:
    api = Client(str(sublet.run_dir / "sublet.sock"))
    with api.lease() as outer:
        with api.lease() as inner:
            source = api.create(BASE, ["true"], name="source", lease=inner.id)
            api.fork_of(source.id, "outer", lease=outer.id)
            api.fork_of(source.id, "own", lease="")
            left = api.fork_of(source.id, "left")
            api.fork_of(source.id, "inner")
            api.update(left["id"], lease="")
            with pytest.raises(InvalidArgument):
                api.update(left["id"], lease=outer.id)
        assert names(sublet) == {"outer", "own", "left"}
    assert names(sublet) == {"own", "left"}
    with pytest.raises(LeaseEnded):
        api.fork_of("own", lease=inner.id)


async def test_a_lease_in_asyncio(sublet: Sublet) -> None:
    api = AsyncClient(str(sublet.run_dir / "sublet.sock"))
    async with api.lease() as lease:
        await api.run(BASE, ["sleep", "infinity"], lease=lease.id)
    assert names(sublet) == set()


def test_a_client_that_is_killed_leaves_nothing(sublet: Sublet) -> None:
    """Neither what runs, nor what is being started, nor what it asked for last."""
    with client(sublet, HOLDER) as (process, _):
        assert process.stdout
        assert [process.stdout.readline() for _ in range(6)] == ["one\n"] * 6
    eventually(lambda: not names(sublet), lambda: names(sublet), 60)
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")


def test_a_child_does_not_hold_it(sublet: Sublet) -> None:
    with client(sublet, FORKING) as (_, child):
        assert len(names(sublet)) == 1
    eventually(lambda: not names(sublet), lambda: names(sublet))
    os.kill(int(child), signal.SIGKILL)


def test_the_daemon_dies_and_one_client_with_it(own: Sublet) -> None:
    """The one that lives on keeps what it has, and goes on using its lease."""
    with client(own, HOLDER, "ours") as (living, lease):
        with client(own, HOLDER, "theirs"):
            own.kill_daemon()
        assert names(own) == {"theirs", "ours"}
        eventually(lambda: names(own) == {"ours"}, lambda: names(own), every=0.5)
        assert own.json("inspect", "ours")["state"] == "running"
        assert own.json("inspect", "ours")["lease"] == lease
        own.ok("daemon", "--stop")
        assert names(own) == {"ours"}
        out, _ = living.communicate("on\n", timeout=60)
        assert (out, living.returncode) == ("closed\n", 0)
        assert names(own) == set()


def test_a_lease_ends_while_there_is_no_daemon(own: Sublet) -> None:
    """Its owner starts one: what it had is to be gone."""
    with client(own, HOLDER, "ours") as (living, _):
        own.kill_daemon()
        out, _ = living.communicate("end\n", timeout=60)
        assert (out, living.returncode) == ("closed\n", 0)
    assert names(own) == set()
