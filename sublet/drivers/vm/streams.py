"""A process in a guest that a client of the machine's supervisor started.

Its output, its exit code and what is said to it share one connection; with the connection ends
the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from sublet.domain.errors import (
    CommandNotExecutable,
    CommandNotFound,
    NoSuchUser,
    StartFailed,
    SubletError,
    WrongState,
)
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.container.streams import STDERR, STDOUT, Attachment, Emit

KILLED = 137
"""Exit code of a process whose machine ended with it."""

_OUTPUTS: dict[int, int] = {Tell.OUTPUT: STDOUT, Tell.ERRORS: STDERR}
_COMMAND_ERRORS: dict[str, type[SubletError]] = {
    "124": NoSuchUser,
    "126": CommandNotExecutable,
    "127": CommandNotFound,
}


class NeverReady(StartFailed):
    """The machine ended, or said nothing, before its guest could judge anything."""


class ProcessStreams(Attachment):
    """The process's input and output; `pump` ends with its exit, whose code it keeps."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.code: int | None = None

    async def pump(self, emit: Emit) -> None:
        while self.code is None:
            message = await protocol.receive(self._socket)
            if message is None:
                self.code = KILLED
            elif message.kind == Tell.EXITED:
                self.code = message.number
            elif message.kind in _OUTPUTS:
                await emit(_OUTPUTS[message.kind], message.data)


class GuestExecution:
    """A further process in a guest; `streams` are its input and output."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.streams = ProcessStreams(connection)

    async def wait(self) -> int:
        """The exit code, 128 + n for signal n. Output that nobody pumped is dropped."""

        async def drop(_stream: int, _data: bytes) -> None:
            pass

        await self.streams.pump(drop)
        return KILLED if self.streams.code is None else self.streams.code

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        with contextlib.suppress(OSError):  # it has ended
            self.connection.send(protocol.numbers(Ask.SIGNAL, number))

    async def kill(self) -> None:
        """Kill the process and all that it has started: the guest does when the client goes."""
        self.close()

    def close(self) -> None:
        """End the process, and what it has started, if it still runs."""
        self.connection.close()


async def say(connection: socket.socket, packets: list[bytes]) -> None:
    """Send them all. Raises OSError where the supervisor has gone."""
    loop = asyncio.get_running_loop()
    for packet in packets:
        await loop.sock_sendall(connection, packet)


async def answer(connection: socket.socket, deadline: float, what: str) -> protocol.Message:
    """What comes next. Raises NeverReady when nothing does within `deadline` seconds (`what`
    was waited for), WrongState when the machine has ended, and what a FAILED amounts to."""
    try:
        async with asyncio.timeout(deadline):
            message = await protocol.receive(connection)
    except TimeoutError as error:
        raise NeverReady(f"The machine did not {what} in time.") from error
    if message is None:
        raise WrongState(f"The machine ended before it could {what}.")
    if message.kind == Tell.FAILED:
        raise explain(message.data.decode(errors="replace"))
    return message


def explain(text: str) -> SubletError:
    """The error that a FAILED packet tells: `CODE:reason`, or what the console showed last."""
    code, colon, reason = text.partition(":")
    if colon and code in _COMMAND_ERRORS:
        return _COMMAND_ERRORS[code](f"{reason.strip().rstrip('.')}.")
    told = colon and code.isdigit()
    kind, why = (StartFailed, reason) if told else (NeverReady, text)
    why = why.strip().rstrip(".") or "it said nothing"
    return kind(f"The machine could not be started: {why}.")
