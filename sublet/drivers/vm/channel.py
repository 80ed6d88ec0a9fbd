"""What is said to a running machine's guest, by way of its supervisor, and its memory saved."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sublet.domain.errors import StartFailed, WrongState
from sublet.drivers import trace
from sublet.drivers.container import protocol
from sublet.drivers.vm import messages
from sublet.drivers.vm.mapping import memory_inode
from sublet.drivers.vm.messages import Command, Say
from sublet.drivers.vm.qmp import Monitor
from sublet.drivers.vm.saving import Saving
from sublet.drivers.vm.streams import GuestExecution, answer, say

DEADLINE = 60.0
"""Seconds that a guest may take to start a process: it may be one of many that have little CPU."""

QUIET_DEADLINE = 30.0


def connect(directory: Path) -> socket.socket:
    """A connection to the supervisor of a machine. Raises WrongState where there is none."""
    try:
        return protocol.connect(directory)
    except OSError as error:
        raise WrongState("The machine does not run any more.") from error


async def execute(directory: Path, command: Command) -> GuestExecution:
    """Start a process. Raises CommandNotFound, CommandNotExecutable, StartFailed, WrongState."""
    connection = connect(directory)
    try:
        async with asyncio.timeout(DEADLINE):
            await say(connection, messages.packets(Say.EXECUTE, messages.execution(command)))
        await answer(connection, DEADLINE, "start the command")
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise StartFailed("The machine does not take the command.") from error
        raise
    return GuestExecution(connection)


@asynccontextmanager
async def quiet(directory: Path, *, freeze: bool = False) -> AsyncIterator[None]:
    """The guest says nothing until the block ends; with `freeze` its file systems stand still.

    The supervisor lets it go on when the connection ends, whoever ends it.
    """
    with contextlib.closing(connect(directory)) as connection:
        with trace.step("quiesce"):
            await say(connection, [bytes([Say.QUIESCE]) + messages.quiesce(freeze=freeze)])
            await answer(connection, QUIET_DEADLINE, "fall silent")
        yield
        with contextlib.suppress(OSError):
            await say(connection, [_go()])


async def go(directory: Path) -> None:
    """Let the guest go on, whose clock has stood still. Raises WrongState."""
    with contextlib.closing(connect(directory)) as connection, contextlib.suppress(OSError):
        await say(connection, [_go()])


def _go() -> bytes:
    return bytes([Say.GO]) + messages.go(time.time())


async def dump(qemu: Monitor, saving: Saving, pid: int, memory: int) -> None:
    """Write all that a machine, which stands still, is."""
    with trace.step("devices"), saving.roomy():
        await qemu.save_devices(saving.devices)
    with trace.step("pages"):
        await saving.pages(pid, memory_inode(pid, memory))
