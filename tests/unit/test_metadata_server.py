"""The metadata service against callers that are slow, endless or plainly wrong."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublet.api.metadata import crowd, server
from sublet.api.metadata.crowd import ALL, EACH, Crowd
from sublet.domain.config import Config
from sublet.domain.metadata import View
from sublet.drivers.network import Caller
from sublet.engine.tasks import Tasks

CALLER = Caller(0, "10.208.0.2")
GOOD = b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\n\r\n"


class Web:
    """The one instance that there is, which needs no token."""

    config = Config(metadata_v1=True)

    def who(self, caller: Caller) -> str | None:
        return "web" if caller == CALLER else None

    def view(self, _: str) -> View:
        return View("0" * 12, "sha256:0", "1x1", "spot", "web", "amd64", 0.0)


class Line:
    """A service, and calls to it."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.server = server.Server(cast("Any", Web()), self.tasks)

    def call(self, caller: Caller = CALLER) -> socket.socket:
        inside, outside = socket.socketpair()
        for end in (inside, outside):
            end.setblocking(False)
        self.server.take(caller, outside)
        return inside

    async def says(self, sock: socket.socket, *sent: bytes) -> bytes:
        """All that is answered, until the connection is closed."""
        loop, answer = asyncio.get_running_loop(), b""
        for data in sent:
            await loop.sock_sendall(sock, data)
        async with asyncio.timeout(5):
            while data := await loop.sock_recv(sock, 65536):
                answer += data
        return answer


@pytest.fixture
async def line(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    monkeypatch.setattr(server, "ASKING", 0.3)
    made = Line()
    yield made
    await made.tasks.close()


async def test_requests_in_a_row(line: Line) -> None:
    with line.call() as sock:
        answer = await line.says(sock, GOOD + GOOD, b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert answer.count(b"200 OK") == 2, "the third does not come whole, and in time"
    assert answer.endswith(b"web")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\n\0\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, b"400"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096, b"400"),
        (b"PUT / HTTP/1.0\r\nContent-Length: 2\r\n\r\nxx", b"405"),
        (b"HEAD /latest/meta-data/hostname HTTP/1.0\r\n\r\n", b"200"),
    ],
)
async def test_what_is_wrong_is_the_last(line: Line, sent: bytes, status: bytes) -> None:
    with line.call() as sock:
        answer = await line.says(sock, sent)
    assert answer.split()[1] == status
    assert not answer.endswith(b"web")


async def test_a_caller_that_goes_leaves_nothing(line: Line) -> None:
    with line.call() as sock:
        await asyncio.get_running_loop().sock_sendall(sock, GOOD[:20])
    with line.call() as sock:
        assert await line.says(sock, b"GET ") == b""
    await asyncio.gather(*line.tasks._tasks)
    assert not line.server._crowd._counts


async def test_nobody_and_too_many_are_refused_at_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ASKING", 10.0)
    with line.call(Caller(1, CALLER.address)) as stranger:
        assert await line.says(stranger) == b""
    held = [line.call() for _ in range(EACH)]
    with line.call() as further:
        assert await line.says(further) == b""
    for sock in held:
        with sock:
            assert b"200 OK" in await line.says(sock, GOOD.replace(b"1.1", b"1.0"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([GOOD, GOOD[:30], b"\r\n", b"PUT ", b"\xff", b"0\r\n\r\n"])))
def test_any_bytes_end_without_an_error(pieces: list[bytes]) -> None:
    async def scene() -> None:
        line = Line()
        with line.call() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"".join(pieces))
            sock.shutdown(socket.SHUT_WR)
            await line.says(sock)
        await line.tasks.close()

    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger("sublet").addHandler(handler)
    try:
        asyncio.run(scene())
    finally:
        logging.getLogger("sublet").removeHandler(handler)
    assert logged == []


async def test_who_has_most_makes_room() -> None:
    made = Crowd()
    waiting = asyncio.Event()
    tasks = []

    def enter(caller: Caller) -> bool:
        if not made.admits(caller):
            return False
        tasks.append(asyncio.create_task(waiting.wait()))
        made.enter(caller, tasks[-1])
        return True

    many = [Caller(0, str(number)) for number in range(ALL // EACH)]
    assert all(enter(caller) for _ in range(EACH) for caller in many)
    assert not enter(many[0])
    assert enter(Caller(1, "new")), "who has none gets the place of somebody's oldest"
    await asyncio.sleep(0)
    assert [task.cancelled() for task in tasks].count(True) == 1
    assert not made.admits(many[1])
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not made._counts


def test_a_caller_waits_for_its_own_requests_alone() -> None:
    made = Crowd()
    waits = [made.delay(CALLER, 100.0) for _ in range(crowd.PACE.burst + 3)]
    assert waits[: crowd.PACE.burst] == [0.0] * crowd.PACE.burst
    assert waits[-1] == pytest.approx(3 / crowd.PACE.rate)
    assert made.delay(Caller(0, "10.208.0.3"), 100.0) == 0
