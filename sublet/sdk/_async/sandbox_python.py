"""Python code in a sandbox: an interpreter that stays, and keeps what it knows.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from sublet.domain.errors import CommandNotFound, TimeoutExceeded
from sublet.sdk import _interpreter
from sublet.sdk._async.client import AsyncClient
from sublet.sdk._async.deadline import Lock, deadline
from sublet.sdk._async.sandbox_exec import AsyncProcess
from sublet.sdk._frames import Frames
from sublet.sdk.results import exec_spec
from sublet.sdk.sandbox_results import (
    Kept,
    PythonResult,
    PythonTimeout,
    python_answer,
    python_result,
)

START = 60.0
"""Seconds that an interpreter may take to start."""

YIELD = 3.0
"""Seconds that code which is interrupted has, to end; then its interpreter is killed."""

ANSWER_MOST = 32 << 20
"""Bytes of an answer: more than the longest texts that an interpreter tells."""

_INTERRUPTED = "The code was interrupted after {:g} s; what it had defined is still there."
_KILLED = "The code took more than {:g} s, and did not heed an interrupt: its interpreter is gone."


class Said:
    """What the interpreter has answered until now, and the streams in which it has not ended."""

    def __init__(self) -> None:
        self.answer = bytearray()
        self.unfinished = {"stdout", "stderr"}


class AsyncPython:
    """The interpreter of one sandbox: python3, which is started when it is first needed."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client, self._name = client, name
        self._lock = Lock()
        self._process: AsyncProcess | None = None
        self._frames: dict[str, Frames] = {}
        self._settled = True
        """Whether the last answer has been heard to its end."""

    async def run(self, code: str, timeout: float, limit: int) -> PythonResult:
        """Run the code to its end. Raises PythonTimeout, CommandNotFound."""
        async with self._lock:
            try:
                process = await self._started()
                async with deadline(START, "The interpreter"):
                    await process.write(code.encode(errors="replace").hex() + "\n")
                return await self._limited(process, timeout, limit)
            except BaseException:
                await self._check()
                raise

    async def restart(self) -> None:
        """Let the next code be run by a new interpreter, which knows nothing."""
        async with self._lock:
            await self._end()

    async def close(self) -> None:
        """End it at once, whatever it does."""
        await self._end()

    async def _started(self) -> AsyncProcess:
        if self._process is not None and self._process.exit_code is None:
            return self._process
        mark = os.urandom(16).hex()
        program = Path(_interpreter.__file__).read_text()
        env = {"PYTHONIOENCODING": "utf-8"}
        spec = exec_spec(["python3", "-c", program], env=env)
        process = AsyncProcess(self._client, self._name, spec)
        try:
            async with deadline(START, "The start of an interpreter"):
                await process.write(mark + "\n")
        except CommandNotFound as error:
            raise CommandNotFound(
                "There is no python3 in the sandbox.",
                hint="Make it of an image that has it, such as python:3.11 of the catalogue.",
            ) from error
        self._process = process
        self._frames = {name: Frames(mark.encode()) for name in ("stdout", "stderr")}
        self._settled = True
        return process

    async def _limited(self, process: AsyncProcess, timeout: float, limit: int) -> PythonResult:
        kept, begun = Kept(limit), time.monotonic()
        said = Said()
        self._settled = False
        try:
            async with deadline(timeout, "The code"):
                await self._answered(process, kept, said)
        except TimeoutExceeded:
            heeded = await self._interrupted(process, kept, said)
            why = (_INTERRUPTED if heeded else _KILLED).format(timeout)
            result = self._result(process, kept, said, begun)
            raise PythonTimeout(why, result=result) from None
        result = self._result(process, kept, said, begun)
        await self._check()
        return result

    async def _interrupted(self, process: AsyncProcess, kept: Kept, said: Said) -> bool:
        """Have the code end; whether the interpreter is still there then."""
        try:
            async with deadline(YIELD, "The interrupt"):
                await process.signal("SIGINT")
                await self._answered(process, kept, said)
        except TimeoutExceeded:
            await self._end()
        return self._settled

    async def _answered(self, process: AsyncProcess, kept: Kept, said: Said) -> None:
        """Take in what comes, until the answer is there, or the interpreter has ended."""
        async for output in process:
            for framed, data in self._frames[output.stream].feed(output.data):
                if not framed:
                    kept.add(1 if output.stream == "stdout" else 2, data)
                elif data:
                    said.answer += data[: ANSWER_MOST - len(said.answer)]
                else:
                    said.unfinished.discard(output.stream)
            if not said.unfinished:
                self._settled = True
                return

    def _result(self, process: AsyncProcess, kept: Kept, said: Said, begun: float) -> PythonResult:
        answer = python_answer(said.answer) if self._settled else None
        if answer is None:
            what = f"ended with {process.exit_code}" if not self._settled else "was imitated"
            message = f"The interpreter {what}; what it had defined is gone."
            answer = {"error": {"name": "InterpreterEnded", "message": message, "traceback": ""}}
            self._settled = False
        return python_result(kept, answer, time.monotonic() - begun)

    async def _check(self) -> None:
        """An interpreter whose answer nobody has heard is none any more."""
        if not self._settled:
            await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.close()
