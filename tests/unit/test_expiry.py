"""Time to live, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sublet.domain.errors import Busy
from sublet.domain.instance import Instance, State
from sublet.domain.spec import InstanceSpec
from sublet.drivers import clock
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.engine.events import Events
from sublet.engine.expiry import Expiry


@dataclass
class Clock:
    """A wall clock that stands still until it is set."""

    time: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return self.time

    async def until(self, moment: float) -> None:
        while self.time < moment:
            self.changed.clear()
            await self.changed.wait()

    def set(self, moment: float) -> None:
        self.time = moment
        self.changed.set()


class Lab:
    """Rows, events, and removals that are only written down."""

    def __init__(self, path: Path) -> None:
        self.store = InstanceStore(Database(path))
        self.events = Events(self.store)
        self.clock = Clock()
        self.removed: asyncio.Queue[str] = asyncio.Queue()
        self.busy: set[str] = set()
        told: list[str] = []
        self.told = told
        parts = SimpleNamespace(store=self.store, events=self.events)
        lifecycle = SimpleNamespace(tell=lambda what, row, **_: told.append(f"{what} {row.id}"))
        verbs = SimpleNamespace(parts=parts, lifecycle=lifecycle, remove=self.remove)
        self.expiry = Expiry(cast(Any, verbs), self.clock.now, self.clock.until)

    async def remove(self, instance_id: str, *, force: bool, volumes: bool) -> None:
        assert force
        assert volumes
        if instance_id in self.busy:
            self.busy.discard(instance_id)
            self.removed.put_nowait(f"not {instance_id}")
            raise Busy("It is busy.")
        self.store.delete(instance_id)
        self.removed.put_nowait(instance_id)

    def add(self, name: str, created: float, ttl: float) -> None:
        spec = InstanceSpec(image="i", ttl=ttl)
        slot = len(self.store.all()) + 1
        self.store.add(Instance(name, name, "i", "d", spec, slot, State.RUNNING, created))
        self.events.publish("instance.created", name)

    async def next(self) -> str:
        return await asyncio.wait_for(self.removed.get(), 10)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "db")
    made.add("early", 0.0, 10.0)
    made.add("for-ever", 0.0, 0.0)
    made.add("late", 5.0, 100.0)
    watching = asyncio.ensure_future(made.expiry.watch())
    yield made
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_each_goes_at_its_age_and_once(lab: Lab) -> None:
    lab.clock.set(9.9)
    await asyncio.sleep(0)
    assert lab.removed.empty()
    lab.clock.set(10.0)
    assert await lab.next() == "early"
    lab.clock.set(9.0)  # set back
    lab.clock.set(105.0)
    assert await lab.next() == "late"
    assert [row.id for row in lab.store.all()] == ["for-ever"]
    assert lab.told == ["expired early", "expired late"]


async def test_a_new_one_may_be_the_next(lab: Lab) -> None:
    lab.clock.set(1.0)
    await asyncio.sleep(0)
    lab.add("short", 1.0, 2.0)
    lab.clock.set(4.0)
    assert await lab.next() == "short"
    lab.clock.set(1000.0)  # set forward over both
    assert {await lab.next(), await lab.next()} == {"early", "late"}


async def test_a_removal_that_fails_is_tried_again(lab: Lab) -> None:
    lab.busy.add("early")
    lab.clock.set(10.0)
    assert await lab.next() == "not early"
    await asyncio.sleep(0)
    lab.clock.set(21.0)
    assert await lab.next() == "early"


async def test_the_wall_clock_is_waited_for() -> None:
    soon = time.time() + 0.05
    await asyncio.wait_for(clock.until(soon), 10)
    assert time.time() >= soon - 0.001
    await asyncio.wait_for(clock.until(0.0), 10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(clock.until(time.time() + 1000), 0.01)


async def test_what_was_promised_lasts_as_long_whatever_the_clock_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, shift = time.time, [0.0]
    monkeypatch.setattr(clock.time, "time", lambda: real() + shift[0])
    begun = time.monotonic()
    soon = asyncio.ensure_future(clock.until_promised(clock.time.time() + 0.2))
    far = asyncio.ensure_future(clock.until_promised(clock.time.time() + 1000))
    await asyncio.sleep(0)
    shift[0] = -86400.0
    await asyncio.wait_for(soon, 10)
    assert time.monotonic() - begun >= 0.2
    shift[0] = 86400.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(far, 0.01)
    await asyncio.wait_for(clock.until_promised(0.0), 10)


@pytest.mark.parametrize("moment", [1e12, 1e19, 1e300])
async def test_what_is_too_far_for_a_clock_never_comes(moment: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await clock.until(moment)
