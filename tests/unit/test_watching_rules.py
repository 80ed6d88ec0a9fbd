"""What watching is made of: shares of CPUs, processes, the last lines, events, keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sublet.cli.keys import Detaching, parse_keys
from sublet.domain.errors import InvalidArgument
from sublet.domain.event import parse
from sublet.domain.stats import Counters, Look, cpu_percent, memory_percent
from sublet.drivers import listing
from sublet.drivers.container.logs import Entry
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.engine import reading
from sublet.engine.events import PAGE, Events


def test_the_share_of_a_cpu() -> None:
    before, now = Look(10.0, Counters(cpu=1.0)), Look(12.0, Counters(cpu=4.0))
    assert cpu_percent(before, now) == 150
    assert cpu_percent(None, now) == 0
    assert cpu_percent(now, now) == 0
    assert cpu_percent(before, Look(11.0, Counters(cpu=0.1))) == 0  # it was started again
    assert memory_percent(1, 4) == 25
    assert memory_percent(1, 0) == 0


def test_this_process_is_listed() -> None:
    (own,) = listing.processes([os.getpid(), 1 << 30], str, nested=False)
    assert (own.host_pid, own.user, own.parent) == (os.getpid(), str(os.getuid()), 0)
    assert listing.processes([os.getpid()], str) == []
    assert own.memory > 1 << 20
    assert "python" in own.command or "pytest" in own.command


def test_names_of_users() -> None:
    text = "root:x:0:0:r:/:/bin/sh\ntoor:x:0:0:r:/:/bin/sh\nbad\nx:x:y:0:::\nweb:x:33:33:w:/:/x\n"
    assert listing.user_names(text) == {0: "root", 33: "web"}


def entry(number: int) -> Entry:
    return Entry("1970-01-01T00:00:00Z", 1, b"%d\n" % number)


async def test_the_last_lines_come_when_all_are_read_and_later_ones_follow() -> None:
    all_read, more = asyncio.Event(), asyncio.Event()

    async def entries() -> AsyncIterator[Entry]:
        for number in range(5):
            yield entry(number)
        all_read.set()
        await more.wait()
        yield entry(5)

    found = reading.last(entries(), all_read, 2)
    assert [await anext(found), await anext(found)] == [entry(3), entry(4)]
    more.set()
    assert [each async for each in found] == [entry(5)]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (2, [1, 2]), (9, [0, 1, 2])])
async def test_the_last_lines_of_what_has_ended(count: int, expected: list[int]) -> None:
    async def entries() -> AsyncIterator[Entry]:
        for number in range(3):
            yield entry(number)

    found = reading.last(entries(), asyncio.Event(), count)
    assert [each async for each in found] == list(map(entry, expected))


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(InstanceStore(Database(tmp_path / "db")))


async def test_a_slow_reader_of_events_loses_none(events: Events) -> None:
    rows = events.read({}, after=0, since=0.0, until=None, follow=True)
    events.publish("instance.pending", "a")
    first = await anext(rows)
    for number in range(3 * PAGE):
        events.publish("instance.running", str(number))
    seen = [await anext(rows) for _ in range(3 * PAGE)]
    assert [row.instance for row in seen] == list(map(str, range(3 * PAGE)))
    assert [row.id for row in seen] == list(range(first.id + 1, first.id + 1 + 3 * PAGE))
    waiting = asyncio.ensure_future(anext(rows))
    await asyncio.sleep(0)
    events.publish("instance.stopped", "z")
    assert (await asyncio.wait_for(waiting, 10)).instance == "z"


async def test_a_reader_of_events_comes_back_where_it_was(events: Events) -> None:
    for number in range(5):
        events.publish("instance.running" if number % 2 else "instance.stopped", str(number))
    wanted = parse(["event=running"])
    seen = [row async for row in events.read(wanted, after=0, since=0, until=None, follow=False)]
    assert [row.instance for row in seen] == ["1", "3"]
    again = events.read(wanted, after=seen[0].id, since=0, until=None, follow=False)
    assert [row.instance async for row in again] == ["3"]
    past = events.read({}, after=0, since=0, until=1.0, follow=True)
    assert [row async for row in past] == []


def test_keys() -> None:
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("a,ctrl-@,ctrl-]") == b"a\x00\x1d"
    for text in ("", "ctrl-", "ctrl-1", "alt-x", "ab"):
        with pytest.raises(InvalidArgument):
            parse_keys(text)


@pytest.mark.parametrize(
    ("pieces", "passed", "done"),
    [
        ([b"hello"], b"hello", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_the_keys_that_detach(pieces: list[bytes], passed: bytes, done: bool) -> None:
    watching = Detaching(b"\x10\x11")
    assert b"".join(map(watching.feed, pieces)) == passed
    assert watching.done is done
