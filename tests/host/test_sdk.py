"""The SDK, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time

import pytest
from conftest import BASE
from conftest import Sublet as CommandLine

import sublet
from sublet.domain.errors import (
    CommandNotFound,
    DaemonUnavailable,
    InvalidArgument,
    NameInUse,
    NoSuchInstance,
)
from sublet.sdk.results import instance_spec


@pytest.fixture
def here(sublet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """This process talks to the tests' daemon."""
    monkeypatch.setenv("SUBLET_ROOT", str(sublet.root))
    monkeypatch.setenv("SUBLET_RUN", str(sublet.run_dir))
    return sublet


def test_the_example(here: CommandLine) -> None:
    with sublet.run(BASE, ["sleep", "60"], memory="256m") as box:
        result = box.exec(["uname", "-a"])
        assert result.exit_code == 0
        assert result.stdout.startswith("Linux ")
        assert box.inspect()["limits"]["memory"] == 256 << 20
    with pytest.raises(NoSuchInstance):
        box.inspect()


def test_streams_are_apart_and_whole(here: CommandLine) -> None:
    data = os.urandom(3 << 20)
    with sublet.run(BASE, ["sleep", "60"]) as box:
        both = box.exec(["sh", "-c", "echo out; echo err >&2; exit 4"])
        assert (both.exit_code, both.stdout, both.stderr) == (4, "out\n", "err\n")
        assert box.exec(["cat"], input=data).stdout_bytes == data
        named = box.exec(
            ["sh", "-c", "echo $A; pwd; id -u"], env={"A": "1"}, working_dir="/tmp", user="1"
        )
        assert named.stdout.split() == ["1", "/tmp", "1"]


def test_a_run_to_the_end(here: CommandLine) -> None:
    client = sublet.Client()
    result = client.output(BASE, ["sh", "-c", "cat; exit 2"], input=b"given")
    assert (result.exit_code, result.stdout) == (2, "given")
    assert client.ps(all=True) == []


def test_it_is_deleted_when_the_block_fails(here: CommandLine) -> None:
    with pytest.raises(ZeroDivisionError), sublet.run(BASE, ["sleep", "60"]) as box:
        raise ZeroDivisionError
    assert box.name not in here.ok("ps", "-a")


def test_errors_are_classes(here: CommandLine) -> None:
    with sublet.run(BASE, ["sleep", "60"], name="one") as box:
        with pytest.raises(NameInUse, match="one"):
            sublet.run(BASE, ["true"], name="one")
        with pytest.raises(CommandNotFound):
            box.exec(["nosuch"])
    with pytest.raises(CommandNotFound):
        sublet.run(BASE, ["nosuch"])
    with pytest.raises(InvalidArgument):
        sublet.run(BASE, ["true"], memory="much")
    with pytest.raises(sublet.SubletError):
        sublet.Client().stop("never-there")
    with pytest.raises(DaemonUnavailable):
        sublet.Client("/nowhere/sublet.sock").ps()


def test_stop_wait_logs(here: CommandLine) -> None:
    script = "trap 'echo bye; exit 6' TERM; echo hello; while :; do sleep 0.05; done"
    with sublet.run(BASE, ["sh", "-c", script]) as box:
        follow = box.logs(follow=True)
        assert next(follow)["data"] == "hello\n"
        box.stop()
        assert box.wait() == 6
        assert [line["data"] for line in follow] == ["bye\n"]


async def test_many_at_once(here: CommandLine) -> None:
    client = sublet.AsyncClient()

    async def one(number: int) -> str:
        async with await client.run(BASE, ["sleep", "60"], memory="32m") as box:
            return (await box.exec(["echo", str(number)])).stdout

    found = await asyncio.gather(*(one(n) for n in range(8)))
    assert found == [f"{n}\n" for n in range(8)]
    assert await client.ps(all=True) == []


async def test_a_cancelled_call_lets_go(here: CommandLine) -> None:
    client = sublet.AsyncClient()
    session, _ = await client.foreground(
        {"image": BASE, "command": ["sleep", "60"], "name": "cancelled"}
    )
    waiting = asyncio.create_task(session.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await session.close()
    assert (await client.inspect("cancelled"))["state"] == "running"
    await client.remove("cancelled", force=True)


async def test_much_in_both_directions_at_once(here: CommandLine) -> None:
    data = os.urandom(3 << 20)
    client = sublet.AsyncClient()
    async with await client.run(BASE, ["sleep", "60"]) as box:
        both = await box.exec(["tee", "/dev/stderr"], input=data)
        assert (both.exit_code, both.stdout_bytes) == (0, data)
        assert both.stderr_bytes == data
        unread = await box.exec(["true"], input=data)
        assert (unread.exit_code, unread.stdout) == (0, "")


async def test_logs_and_events_follow(here: CommandLine) -> None:
    client = sublet.AsyncClient()
    script = "echo one; read line; echo two >&2"
    async with await client.run(BASE, ["sh", "-c", script], stdin=True) as box:
        seen = []
        async for line in box.logs(follow=True):
            seen.append((line["stream"], line["data"]))
            await box.kill()
        assert seen == [(1, "one\n")]
        assert await box.wait() == 137
        await box.remove()
    types = [e["type"] async for e in client.events() if e["instance"] == box.id]
    assert types[-1] == "instance.terminated"


async def test_it_is_deleted_when_the_task_is_cancelled(here: CommandLine) -> None:
    client, begun = sublet.AsyncClient(), asyncio.Event()

    async def work() -> None:
        async with await client.run(BASE, ["sleep", "60"]):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.ps(all=True) == []


def test_stop_waits_as_long_as_it_is_told(here: CommandLine) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]
    with sublet.run(BASE, stubborn) as box:
        next(box.logs(follow=True))
        began = time.monotonic()
        box.stop(timeout=0.5)
        assert 0.5 <= time.monotonic() - began < 10, "what it is given without being told"
        assert box.wait() == 137
        box.remove()
    box.remove(force=True)
    with pytest.raises(NoSuchInstance):
        box.remove()


def test_a_process_in_dialogue(here: CommandLine) -> None:
    client = sublet.Client()
    session, instance = client.foreground(instance_spec(BASE, ["cat"], stdin=True, remove=True))
    for word in (b"first\n", b"second\n"):
        session.send_input(word)
        assert session.receive() == b"\x01" + word
    session.close_input()
    assert session.receive() == {"type": "exit", "code": 0}
    session.close()
    assert instance["id"] not in [row["id"] for row in client.ps(all=True)]


def test_a_file_system_as_a_stream(here: CommandLine) -> None:
    with sublet.run(BASE, ["sleep", "60"]) as box:
        data = io.BytesIO(b"".join(sublet.Client().export(box.id)))
    with tarfile.open(fileobj=data) as tar:
        assert "./etc/debian_version" in tar.getnames()
