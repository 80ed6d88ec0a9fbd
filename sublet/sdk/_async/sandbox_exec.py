"""Commands in a sandbox, whose output comes as they write it.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

from sublet.domain.errors import InvalidArgument, TimeoutExceeded
from sublet.sdk._async import wire
from sublet.sdk._async.client import AsyncClient
from sublet.sdk._async.deadline import deadline
from sublet.sdk.sandbox_results import CommandTimeout, Kept, Output, Result

if TYPE_CHECKING:
    from typing import Any

GRACE = 15.0
"""Seconds that the daemon has, after a command's time has passed, to kill it and to say so."""

KILLED = 137
_STREAMS: dict[int, Literal["stdout", "stderr"]] = {1: "stdout", 2: "stderr"}


class AsyncProcess:
    """A command at work: iterate over it for its `Output`, until it has ended; then `exit_code`
    is there. It starts with the first step, or `start`. As a context manager it is killed at the
    end, if it still runs. Leaving it kills it, too.
    """

    def __init__(self, client: AsyncClient, name: str, spec: dict[str, Any]) -> None:
        self._client, self._name, self._spec = client, name, spec
        self._session: wire.AsyncSession | None = None
        self._until = math.inf
        self.exit_code: int | None = None

    async def __aenter__(self) -> AsyncProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start it; once."""
        if self._session is None:
            self._until = time.monotonic() + (self._spec.get("timeout", math.inf) + GRACE)
            async with deadline(self._left(), "The start of the command"):
                self._session = await self._client.exec_session(self._name, self._spec)

    def __aiter__(self) -> AsyncProcess:
        return self

    async def __anext__(self) -> Output:
        while self.exit_code is None:
            message = await self._receive()
            if isinstance(message, bytes):
                if len(message) > 1:
                    return Output(_STREAMS[message[0]], message[1:])
            elif message["type"] == "exit":
                self.exit_code = int(message["code"])
                await self.close()
        raise StopAsyncIteration

    async def _receive(self) -> bytes | dict[str, Any]:
        await self.start()
        try:
            async with deadline(self._left(), "The command"):
                return await self._running().receive()
        except TimeoutExceeded:
            self.exit_code = KILLED
            await self.close()
            raise

    def _left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def _running(self) -> wire.AsyncSession:
        if self._session is None or self.exit_code is not None:
            raise InvalidArgument("The command does not run.", hint="Start it first: `start()`.")
        return self._session

    async def write(self, data: bytes | str) -> None:
        """Write to its standard input."""
        await self.start()
        data = data.encode() if isinstance(data, str) else data
        async with deadline(self._left(), "Writing to the command"):
            for begin in range(0, len(data), 65536):
                await self._running().send_input(data[begin : begin + 65536])

    async def close_input(self) -> None:
        """Let it read an end of file."""
        await self.start()
        async with deadline(self._left(), "Writing to the command"):
            await self._running().close_input()

    async def signal(self, name: str) -> None:
        """Send it a signal, such as SIGINT."""
        async with deadline(self._left(), "Signalling the command"):
            await self._running().signal(name)

    async def wait(self) -> int:
        """Its exit code, once it has ended; output that comes until then is dropped."""
        async for _ in self:
            pass
        return KILLED if self.exit_code is None else self.exit_code

    async def close(self) -> None:
        """Let go of it: it is killed, if it still runs."""
        if self._session is not None:
            await self._session.close()
        if self.exit_code is None:
            self.exit_code = KILLED


async def collected(process: AsyncProcess, input: bytes, limit: int) -> Result:
    """Feed the process, gather its output, and wait for its end. Raises CommandTimeout."""
    kept, begun = Kept(limit), time.monotonic()
    try:
        async with process:
            if input:
                await process.write(input)
            await process.close_input()
            async for output in process:
                kept.add(1 if output.stream == "stdout" else 2, output.data)
    except TimeoutExceeded as error:
        result = kept.result(KILLED, time.monotonic() - begun)
        raise CommandTimeout(error.message, hint=error.hint, result=result) from None
    assert process.exit_code is not None
    return kept.result(process.exit_code, time.monotonic() - begun)
