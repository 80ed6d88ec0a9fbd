# Made from ../_async/sandbox_exec.py by scripts/unasync.py; edit that file.
"""Commands in a sandbox, whose output comes as they write it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

from sublet.domain.errors import InvalidArgument, TimeoutExceeded
from sublet.sdk._sync import wire
from sublet.sdk._sync.client import Client
from sublet.sdk._sync.deadline import deadline
from sublet.sdk.sandbox_results import CommandTimeout, Kept, Output, Result

if TYPE_CHECKING:
    from typing import Any

GRACE = 15.0
"""Seconds that the daemon has, after a command's time has passed, to kill it and to say so."""

KILLED = 137
_STREAMS: dict[int, Literal["stdout", "stderr"]] = {1: "stdout", 2: "stderr"}


class Process:
    """A command at work: iterate over it for its `Output`, until it has ended; then `exit_code`
    is there. It starts with the first step, or `start`. As a context manager it is killed at the
    end, if it still runs. Leaving it kills it, too.
    """

    def __init__(self, client: Client, name: str, spec: dict[str, Any]) -> None:
        self._client, self._name, self._spec = client, name, spec
        self._session: wire.Session | None = None
        self._until = math.inf
        self.exit_code: int | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it; once."""
        if self._session is None:
            self._until = time.monotonic() + (self._spec.get("timeout", math.inf) + GRACE)
            with deadline(self._left(), "The start of the command"):
                self._session = self._client.exec_session(self._name, self._spec)

    def __iter__(self) -> Process:
        return self

    def __next__(self) -> Output:
        while self.exit_code is None:
            message = self._receive()
            if isinstance(message, bytes):
                if len(message) > 1:
                    return Output(_STREAMS[message[0]], message[1:])
            elif message["type"] == "exit":
                self.exit_code = int(message["code"])
                self.close()
        raise StopIteration

    def _receive(self) -> bytes | dict[str, Any]:
        self.start()
        try:
            with deadline(self._left(), "The command"):
                return self._running().receive()
        except TimeoutExceeded:
            self.exit_code = KILLED
            self.close()
            raise

    def _left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def _running(self) -> wire.Session:
        if self._session is None or self.exit_code is not None:
            raise InvalidArgument("The command does not run.", hint="Start it first: `start()`.")
        return self._session

    def write(self, data: bytes | str) -> None:
        """Write to its standard input."""
        self.start()
        data = data.encode() if isinstance(data, str) else data
        with deadline(self._left(), "Writing to the command"):
            for begin in range(0, len(data), 65536):
                self._running().send_input(data[begin : begin + 65536])

    def close_input(self) -> None:
        """Let it read an end of file."""
        self.start()
        with deadline(self._left(), "Writing to the command"):
            self._running().close_input()

    def signal(self, name: str) -> None:
        """Send it a signal, such as SIGINT."""
        with deadline(self._left(), "Signalling the command"):
            self._running().signal(name)

    def wait(self) -> int:
        """Its exit code, once it has ended; output that comes until then is dropped."""
        for _ in self:
            pass
        return KILLED if self.exit_code is None else self.exit_code

    def close(self) -> None:
        """Let go of it: it is killed, if it still runs."""
        if self._session is not None:
            self._session.close()
        if self.exit_code is None:
            self.exit_code = KILLED


def collected(process: Process, input: bytes, limit: int) -> Result:
    """Feed the process, gather its output, and wait for its end. Raises CommandTimeout."""
    kept, begun = Kept(limit), time.monotonic()
    try:
        with process:
            if input:
                process.write(input)
            process.close_input()
            for output in process:
                kept.add(1 if output.stream == "stdout" else 2, output.data)
    except TimeoutExceeded as error:
        result = kept.result(KILLED, time.monotonic() - begun)
        raise CommandTimeout(error.message, hint=error.hint, result=result) from None
    assert process.exit_code is not None
    return kept.result(process.exit_code, time.monotonic() - begun)
