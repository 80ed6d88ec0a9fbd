"""Waking by a connection: what the kernel tells, what is probed, who is woken and how often."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import waking
from sublet.domain.change import Change, changed
from sublet.domain.errors import InsufficientCapacity, InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.ports import Port
from sublet.domain.spec import InstanceSpec, check_spec
from sublet.drivers.network import probe
from sublet.drivers.network.knocks import Knock, knocks
from sublet.drivers.store.database import Database
from sublet.drivers.store.instances import InstanceStore
from sublet.engine.tasks import Tasks
from sublet.engine.waking import Waking

SPEC = InstanceSpec("i", cpus=1, memory=1 << 29, ports=(Port(80, 8080),), wake=True)
ROW = Instance("a", "a", "i", "d", SPEC, 1, State.STOPPED, 1.0, started=2.0)
KNOCK = Knock("tcp", "192.0.2.9", "192.0.2.1", 8080)


def packet(protocol: int = 6, port: int = 8080, options: int = 0) -> bytes:
    head = bytes([0x45 + options, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0])
    head += socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + b"\0" * 4 * options
    return head + struct.pack(">HH", 4711, port) + b"\0" * 16


def told(*payloads: bytes) -> bytes:
    found = b""
    for payload in payloads:
        attributes = struct.pack("=HHI", 8, 3, 0)
        attributes += struct.pack("=HH", 4 + len(payload), 9) + payload
        attributes += b"\0" * (-len(payload) % 4)
        body = struct.pack(">BBH", socket.AF_INET, 0, 4242) + attributes
        found += struct.pack("=IHHII", 16 + len(body), 0x400, 0, 0, 0) + body
    return found


def test_what_the_kernel_tells_is_read() -> None:
    assert list(knocks(told(packet()))) == [KNOCK]
    udp = replace(KNOCK, protocol="udp", port=53)
    assert list(knocks(told(packet(17, 53, options=2), packet()))) == [udp, KNOCK]
    assert list(knocks(told(packet(1)))) == []
    assert list(knocks(told(b"\x60" + packet()[1:]))) == []


@given(st.binary(max_size=200))
def test_nonsense_is_left_out(data: bytes) -> None:
    list(knocks(data))
    list(knocks(told(data)))
    probe.answer(data, 80, 40000)


def test_a_probe_is_a_sound_segment() -> None:
    made = probe.segment("10.0.0.1", "10.0.0.2", 40000, 80)
    pseudo = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    total = sum(struct.unpack(">16H", pseudo + struct.pack(">HH", 6, 20) + made))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert struct.unpack_from(">HH", made) == (40000, 80)
    reply = packet()[:20] + struct.pack(">HH", 80, 40000) + b"\0" * 9 + b"\x12" + b"\0" * 6
    assert probe.answer(reply, 80, 40000) == 0x12
    assert probe.answer(reply, 81, 40000) is None


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (ROW, True),
        (replace(ROW, state=State.HIBERNATED), True),
        (replace(ROW, started=0.0), False),
        (replace(ROW, state=State.SHUTTING_DOWN), False),
        (replace(ROW, spec=replace(SPEC, wake=False)), False),
        (replace(ROW, spec=replace(SPEC, ports=(Port(80, 0),))), False),
        (replace(ROW, spec=replace(SPEC, ports=())), False),
    ],
)
def test_whose_ports_are_held(row: Instance, holds: bool) -> None:
    assert waking.holds_ports(row) is holds
    assert waking.sleeps(row) is holds
    assert not waking.sleeps(replace(row, state=State.RUNNING))


def test_pauses_grow() -> None:
    pauses = [waking.pause(count) for count in range(1, 100)]
    assert pauses[:3] == [1, 2, 4]
    assert pauses == sorted(pauses)
    assert max(pauses) == waking.LONGEST_PAUSE


def test_what_is_refused() -> None:
    check_spec(SPEC)
    with pytest.raises(InvalidArgument, match="has none"):
        check_spec(replace(SPEC, ports=()))
    with pytest.raises(InvalidArgument, match="cannot be woken"):
        check_spec(replace(SPEC, remove=True))
    assert not changed(SPEC, Change(wake=False)).wake
    with pytest.raises(InvalidArgument, match="has none"):
        changed(replace(SPEC, ports=(), wake=False), Change(wake=True))


class Lab:
    """One daemon's sleepers; starts are written down."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.store = InstanceStore(self.database)
        self.tasks = Tasks()
        self.now, self.fails, self.listening = 0.0, False, True
        self.started, self.told, self.opened = 0, list[str](), list[Port]()
        self.quiet = True
        ports = SimpleNamespace(
            sleeper=lambda knock: "a" if knock.port == 8080 else "",
            quiets=lambda _: self.quiet,
            open=self._open,
        )
        endpoint = SimpleNamespace(address="10.0.0.2")
        parts = SimpleNamespace(
            store=self.store, tasks=self.tasks, network=SimpleNamespace(ports=ports)
        )
        lifecycle = SimpleNamespace(
            tell=lambda what, *_, **__: self.told.append(what),
            connections=SimpleNamespace(endpoint=lambda _: endpoint),
        )
        verbs = SimpleNamespace(parts=parts, lifecycle=lifecycle, start=self._start)
        self.waking = Waking(cast(Any, verbs), lambda: self.now, self._listens)
        self.store.add(ROW)

    async def _start(self, _: str) -> None:
        self.started += 1
        await asyncio.sleep(0)
        if self.fails:
            raise InsufficientCapacity("There is no room.")
        self.store.update(replace(ROW, state=State.RUNNING))
        self.waking.up(replace(ROW, state=State.RUNNING))

    async def _open(self, _: str, port: Port) -> None:
        self.opened.append(port)

    async def _listens(self, _address: str, _port: int) -> bool:
        self.now += 10
        return self.listening

    async def knock(self, knock: Knock = KNOCK, times: int = 1) -> None:
        for _ in range(times):
            self.waking.heard(knock)
        await asyncio.sleep(0.2)

    def state(self, state: State) -> None:
        self.store.update(replace(ROW, state=state))


@pytest.fixture
async def lab(tmp_path: Path) -> Any:
    made = Lab(tmp_path / "db")
    yield made
    await made.tasks.close()
    made.database.close()


async def test_one_that_is_removed_while_it_wakes_has_not_failed(lab: Lab) -> None:
    lab.fails = True
    lab.waking.heard(KNOCK)
    lab.store.delete("a")
    await asyncio.sleep(0.2)
    assert (lab.started, lab.told, lab.waking.failure("a")) == (1, [], None)


async def test_many_knocks_are_one_wake(lab: Lab) -> None:
    await lab.knock(times=1000)
    assert (lab.started, lab.told, lab.opened) == (1, ["woken"], [Port(80, 8080)])
    await lab.knock(times=10)  # it runs; what is dropped still is repeated
    assert lab.started == 1


async def test_nobody_else_is_woken(lab: Lab) -> None:
    await lab.knock(replace(KNOCK, port=9))
    for state in (State.RUNNING, State.STOPPING, State.PENDING, State.HIBERNATING):
        lab.state(state)
        await lab.knock()
    assert lab.started == 0


async def test_a_failure_is_told_and_tried_again_after_a_pause(lab: Lab) -> None:
    lab.fails = True
    await lab.knock(times=5)
    assert (lab.started, lab.told) == (1, ["wake-failed"])
    failure = lab.waking.failure("a")
    assert failure
    assert "no room" in failure.reason
    lab.now += 0.5
    await lab.knock()
    assert lab.started == 1
    lab.now += 0.6
    await lab.knock()
    failure = lab.waking.failure("a")
    assert failure
    assert (lab.started, failure.count) == (2, 2)
    lab.now += 1.5
    await lab.knock()
    assert lab.started == 2
    lab.now += 0.6
    lab.fails = False
    await lab.knock()
    assert lab.started == 3
    assert lab.waking.failure("a") is None


async def test_where_nobody_listens_the_door_opens_at_last(lab: Lab) -> None:
    lab.listening = False
    await lab.knock()
    await asyncio.sleep(0.5)
    assert lab.opened == [Port(80, 8080)]


async def test_who_has_stopped_meanwhile_stays_shut(lab: Lab) -> None:
    lab.listening = False
    await lab.knock()
    lab.state(State.STOPPING)
    await asyncio.sleep(0.5)
    assert lab.opened == []
