"""What the daemon and a supervisor say to each other, as bytes."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Message, Tell

HEADER = Path(__file__).parents[2] / "supervisor" / "protocol.h"


def test_both_sides_mean_the_same() -> None:
    letters = dict(re.findall(r"^    ([A-Z]+) = '(.)'", HEADER.read_text(), re.MULTILINE))
    assert letters == {kind.name: chr(kind) for kind in (*Ask, *Tell)}
    assert "enum { MESSAGE = 1 << 15 }" in HEADER.read_text()
    assert protocol.MESSAGE == 1 << 15


def test_messages() -> None:
    assert protocol.packet(Ask.INPUT, b"ab") == b"iab"
    assert protocol.numbers(Ask.SIGNAL, 9) == b"k\x09\0\0\0"
    assert protocol.execution("pid", ["crun", "exec", ""]) == b"epid\0crun\0exec\0\0"


async def test_answers() -> None:
    ours, theirs = protocol.pair()
    with ours, theirs:
        theirs.send(b"s\x01\x02\0\0")
        theirs.send(b"o")
        theirs.send(b"f" + b"x" * protocol.MESSAGE)
        theirs.shutdown(socket.SHUT_WR)
        started = await protocol.receive(ours)
        assert started is not None
        assert (started.kind, started.number) == (Tell.STARTED, 513)
        empty = await protocol.receive(ours)
        assert empty is not None
        assert (empty.data, empty.number) == (b"", -1)
        longest = await protocol.receive(ours)
        assert longest is not None
        assert len(longest.data) == protocol.MESSAGE
        assert await protocol.receive(ours) is None


async def test_what_was_said_before_a_hasty_end_is_heard() -> None:
    ours, theirs = protocol.pair()
    theirs.send(bytes([Tell.OUTPUT]) + b"x")
    theirs.send(bytes([Tell.EXITED, 0, 0, 0, 0]))
    ours.send(protocol.packet(Ask.CLOSE))  # nobody reads it: our end is reset
    theirs.close()
    with ours:
        heard = [await protocol.receive(ours) for _ in range(3)]
    assert heard == [Message(Tell.OUTPUT, b"x"), Message(Tell.EXITED, bytes(4)), None]


async def test_who_floods_leaves_others_their_turn() -> None:
    """What has come already is read without a wait, and so would be all of an endless stream."""
    ours, theirs = protocol.pair()
    turns, heard = 0, 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    with ours, theirs:
        for _ in range(50):
            theirs.send(b"ox")
        task = asyncio.create_task(other())
        while heard < 50:
            assert await protocol.receive(ours)
            heard += 1
        task.cancel()
    assert turns >= 40
