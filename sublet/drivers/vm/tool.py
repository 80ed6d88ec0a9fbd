"""The agent's own program in a guest (`guest/copy.c`), which works on the instance's files.

What it answers was written inside the tenant's machine: it is bounded, and shown as plain text.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sublet.domain.errors import CopyFailed, StartFailed, SubletError, WrongState
from sublet.drivers import complaints
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Tell
from sublet.drivers.vm.messages import Command
from sublet.drivers.vm.streams import GuestExecution

Execute = Callable[[str, Command], Awaitable[GuestExecution]]
"""Starts a process in the guest of an instance."""

SILENCE = 120.0
"""Seconds for which a guest may have nothing to say, when it is its turn."""

PATIENCE = 5.0
"""Seconds in which the program may tidy up, when its input has ended too early."""

_COMPLAINT = 8192


def explain(code: int, complaint: bytes) -> SubletError:
    """The error that the program has told, or that it has told none."""
    return complaints.told(complaint) or CopyFailed(
        f"The machine did not finish it; its program ended with {code}."
    )


class Tool:
    """The program at its work, until its connection ends."""

    def __init__(self, execution: GuestExecution) -> None:
        self._execution = execution
        self._connection = execution.connection
        self._ended = self._closed = False
        self._hearing = asyncio.Lock()

    async def output(self, silence: float | None = SILENCE) -> AsyncGenerator[bytes, None]:
        """What it writes; then the error for which that is not all."""
        complaint = b""
        while True:
            message = await self._heard(silence)
            if message.kind == Tell.OUTPUT:
                yield message.data
            elif message.kind == Tell.ERRORS:
                complaint = (complaint + message.data)[:_COMPLAINT]
            elif message.kind == Tell.EXITED:
                self._ended = True
                if message.number:
                    raise explain(message.number, complaint)
                return

    async def answer(self, most: int, within: float | None = SILENCE) -> bytes:
        """All that it writes, which must not be more than `most` bytes, nor take longer than
        `within` seconds."""
        found = bytearray()
        try:
            async with asyncio.timeout(within):
                async for piece in self.output(None):
                    found += piece
                    if len(found) > most:
                        raise CopyFailed("The machine's answer is too long.")
        except TimeoutError as error:
            raise _slow(f"The machine has not answered within {within:g} s.") from error
        return bytes(found)

    async def _heard(self, silence: float | None) -> protocol.Message:
        message = None
        try:
            async with asyncio.timeout(silence), self._hearing:
                if not self._closed:
                    message = await protocol.receive(self._connection)
        except TimeoutError as error:
            raise _slow(f"The machine has said nothing for {silence:g} s.") from error
        if message is None:
            self._ended = True
            raise WrongState("The instance has ended meanwhile.", hint="Try again.")
        return message

    async def send(self, data: bytes) -> None:
        """Give it input; ignored when it has ended."""
        await self._execution.streams.send(data)

    async def close_input(self) -> None:
        """Let it read an end of file."""
        await self._execution.streams.close_input()

    async def close(self, *, tidy: bool) -> None:
        """End it; before, one that unpacks (`tidy`) may remove the file that is incomplete. Who
        waits for its words hears that it has ended."""
        if tidy and not self._ended:
            with contextlib.suppress(SubletError, OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.close_input()
                    async for _ in self.output():
                        pass
        self._closed = True
        with contextlib.suppress(OSError):  # the machine has closed it
            self._connection.shutdown(socket.SHUT_RDWR)
        async with self._hearing:
            self._execution.close()


def _slow(message: str) -> StartFailed:
    return StartFailed(message, hint="It may be too busy, or hang; `sublet logs` may tell.")


@asynccontextmanager
async def working(execute: Execute, instance_id: str, *args: str) -> AsyncIterator[Tool]:
    """The program at the job `args`, until the block ends."""
    command = Command(("files", *args), tool=True)
    tool = Tool(await execute(instance_id, command))
    try:
        yield tool
    finally:
        await asyncio.shield(tool.close(tidy=args[0] == "receive"))
