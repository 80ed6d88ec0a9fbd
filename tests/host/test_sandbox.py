"""Sandboxes in containers, as a Python program has them."""

from __future__ import annotations

import os
import time
from urllib.request import urlopen

import pytest
from conftest import BASE, eventually
from conftest import Sublet as CommandLine
from sandboxlab import SERVER, gone

import sublet
from sublet.domain.errors import CommandNotFound, InvalidArgument, NoSuchInstance
from sublet.sdk.sandbox_results import CommandTimeout


@pytest.fixture(autouse=True)
def here(sublet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """This process talks to the tests' daemon."""
    monkeypatch.setenv("SUBLET_ROOT", str(sublet.root))
    monkeypatch.setenv("SUBLET_RUN", str(sublet.run_dir))
    return sublet


def test_a_sandbox_is_an_instance_that_goes(here: CommandLine) -> None:
    with sublet.Sandbox.create(labels={"for": "me"}, name="box") as box:
        row = here.json("inspect", "box")
        assert (row["id"], row["name"]) == (box.id, box.name)
        assert row["labels"]["io.sublet.sandbox"] == "1"
        assert (row["labels"]["for"], row["ttl"], row["size"]) == ("me", 3600.0, "1x0.5")
        assert sublet.Sandbox.attach("box").id == box.id
    assert here.json("ps", "-a", "--json") == []
    box.close()
    with pytest.raises(NoSuchInstance):
        box.exec("true")


def test_commands(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, env={"A": "1"}) as box:
        both = box.exec("echo $A; echo err >&2; exit 4")
        assert (both.exit_code, both.stdout, both.stderr, both.ok) == (4, "1\n", "err\n", False)
        told = box.exec(["sh", "-c", "echo $B; pwd; id -u"], env={"B": "2"}, cwd="/tmp", user="7")
        assert (told.stdout.split(), told.ok, told.truncated) == (["2", "/tmp", "7"], True, False)
        assert 0 < told.seconds < 60
        data = os.urandom(1 << 20)
        assert box.exec(["cat"], input=data).stdout_bytes == data
        cut = box.exec("yes | head -c 1000000; echo x >&2", limit=10)
        assert (cut.stdout, cut.stderr, cut.truncated) == ("y\n" * 5, "x\n", True)
        with pytest.raises(CommandNotFound):
            box.exec(["nosuch"])
        with pytest.raises(InvalidArgument):
            box.exec("true", timeout=0)


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        script = "echo begun; sleep 7001 & setsid sh -c 'sleep 7002; true' & sleep 7003"
        with pytest.raises(CommandTimeout, match="killed after 4 s") as caught:
            box.exec(script, timeout=4)
        assert (caught.value.result.stdout, caught.value.result.exit_code) == ("begun\n", 137)
        gone(box, "7001", "7002", "7003")
        with pytest.raises(sublet.TimeoutExceeded) as flood:
            box.exec("yes", timeout=3, limit=100)
        assert len(flood.value.result.stdout) == 100  # type: ignore[attr-defined]
        assert box.exec("echo on").stdout == "on\n"


def test_output_comes_as_it_is_written(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        with box.exec_stream("while read line; do echo got $line; done; echo end >&2") as process:
            process.write("one\n")
            assert next(process).text == "got one\n"
            process.write(b"two\n")
            assert next(process).data == b"got two\n"
            process.close_input()
            assert [(each.stream, each.text) for each in process] == [("stderr", "end\n")]
            assert process.exit_code == 0
        heard = box.exec_stream("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
        assert next(heard).text == "up\n"
        heard.signal("SIGTERM")
        assert heard.wait() == 9


def test_a_stream_that_is_left_ends_what_it_started(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        with box.exec_stream("sleep 7004 & echo up; sleep 7005") as process:
            assert next(process).text == "up\n"
        gone(box, "7004", "7005")


def test_points_in_time(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, env={"A": "1"}) as box:
        box.files.write("/data", "one")
        snapshot = box.snapshot("first")
        box.files.write("/data", "two")
        forks = box.fork(3)
        try:
            assert len({fork.id for fork in forks} | {box.id}) == 4
            assert {fork.files.read_text("/data") for fork in forks} == {"two"}
            assert {fork.exec("echo $A").stdout for fork in forks} == {"1\n"}
            forks[0].files.write("/data", "three")
            assert box.files.read_text("/data") == "two"
            (of_snapshot,) = box.fork(snapshot=snapshot)
            with of_snapshot:
                assert of_snapshot.files.read_text("/data") == "one"
            box.rollback("first")
            assert (box.files.read_text("/data"), box.exec("true").ok) == ("one", True)
        finally:
            for fork in forks:
                fork.close()


def test_where_it_answers(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, ports=[8000]) as box:
        with box.exec_stream(SERVER) as server:
            assert next(server).text == "up\n"
            for url in (box.url(8000), box.url(8000, publish=True)):
                with urlopen(url, timeout=30) as answer:
                    assert answer.read() == b"hello"
        with pytest.raises(InvalidArgument, match="9000"):
            box.url(9000, publish=True)


def test_every_call_has_a_deadline(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        for call in (
            lambda: box.files.list("/", timeout=1e-9),
            lambda: box.files.read("/etc/passwd", timeout=1e-9),
            lambda: box.files.write("/x", b"x", timeout=1e-9),
            lambda: box.snapshot(timeout=1e-9),
            lambda: box.fork(2, timeout=1e-9),
            lambda: box.url(80, timeout=1e-9),
        ):
            with pytest.raises(sublet.TimeoutExceeded, match="took more than"):
                call()
        eventually(lambda: len(here.json("ps", "-a", "--json")) == 1, "half-made forks are gone")
        assert box.exec("echo on").stdout == "on\n"


def test_it_goes_with_its_lease_and_its_forks_do(here: CommandLine) -> None:
    box = sublet.Sandbox.create(BASE, lease=True)
    (fork,) = box.fork()
    box.close()
    assert fork.exec("echo on").stdout == "on\n"
    fork.close()
    assert here.json("ps", "-a", "--json") == []


def test_many_threads_have_deadlines_of_their_own(here: CommandLine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with sublet.Sandbox.create(BASE) as box, ThreadPoolExecutor(4) as pool:
        slow = pool.submit(box.exec, "sleep 1; echo slow", timeout=60)
        quick = [pool.submit(box.exec, "sleep 60", timeout=0.2) for _ in range(3)]
        for each in quick:
            assert isinstance(each.exception(60), CommandTimeout)
        assert slow.result(60).stdout == "slow\n"


async def test_the_same_awaited(here: CommandLine) -> None:
    import asyncio

    async with await sublet.AsyncSandbox.create(BASE) as box:
        assert (await box.exec("cat", input="in")).stdout == "in"
        with pytest.raises(CommandTimeout):
            await box.exec("sleep 7006", timeout=0.5)
        assert [each.text async for each in box.exec_stream("echo a; echo b >&2")] in (
            ["a\n", "b\n"],
            ["b\n", "a\n"],
        )
        await box.files.write("/deep/er/file", "text")
        assert [row.name for row in await box.files.list("/deep")] == ["er"]
        async with box.files.watch("/deep", recursive=True) as watch:
            await box.files.write("/deep/er/new", b"")
            assert (await anext(watch)).path == "/deep/er/new"
        begun = time.monotonic()
        waiting = asyncio.create_task(box.exec("sleep 7007"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - begun < 30
        forks = await box.fork(2)
        await asyncio.gather(*(fork.close() for fork in forks))
        with pytest.raises(sublet.TimeoutExceeded):
            await box.files.list("/", timeout=1e-9)


async def test_many_at_once(here: CommandLine) -> None:
    import asyncio

    async def one(number: int) -> str:
        async with await sublet.AsyncSandbox.create(BASE, size="0.1x0.05") as box:
            await box.files.write("/n", str(number))
            return (await box.exec("cat /n")).stdout

    assert await asyncio.gather(*(one(n) for n in range(6))) == [str(n) for n in range(6)]
