# Made from ../_async/sandbox_python.py by scripts/unasync.py; edit that file.
"""Python code in a sandbox: an interpreter that stays, and keeps what it knows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from sublet.domain.errors import CommandNotFound, TimeoutExceeded
from sublet.sdk import _interpreter
from sublet.sdk._sync.client import Client
from sublet.sdk._sync.deadline import Lock, deadline
from sublet.sdk._sync.sandbox_exec import Process
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


class Python:
    """The interpreter of one sandbox: python3, which is started when it is first needed."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._lock = Lock()
        self._process: Process | None = None
        self._frames: dict[str, Frames] = {}
        self._settled = True
        """Whether the last answer has been heard to its end."""

    def run(self, code: str, timeout: float, limit: int) -> PythonResult:
        """Run the code to its end. Raises PythonTimeout, CommandNotFound."""
        with self._lock:
            try:
                process = self._started()
                with deadline(START, "The interpreter"):
                    process.write(code.encode(errors="replace").hex() + "\n")
                return self._limited(process, timeout, limit)
            except BaseException:
                self._check()
                raise

    def restart(self) -> None:
        """Let the next code be run by a new interpreter, which knows nothing."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End it at once, whatever it does."""
        self._end()

    def _started(self) -> Process:
        if self._process is not None and self._process.exit_code is None:
            return self._process
        mark = os.urandom(16).hex()
        program = Path(_interpreter.__file__).read_text()
        env = {"PYTHONIOENCODING": "utf-8"}
        spec = exec_spec(["python3", "-c", program], env=env)
        process = Process(self._client, self._name, spec)
        try:
            with deadline(START, "The start of an interpreter"):
                process.write(mark + "\n")
        except CommandNotFound as error:
            raise CommandNotFound(
                "There is no python3 in the sandbox.",
                hint="Make it of an image that has it, such as python:3.11 of the catalogue.",
            ) from error
        self._process = process
        self._frames = {name: Frames(mark.encode()) for name in ("stdout", "stderr")}
        self._settled = True
        return process

    def _limited(self, process: Process, timeout: float, limit: int) -> PythonResult:
        kept, begun = Kept(limit), time.monotonic()
        said = Said()
        self._settled = False
        try:
            with deadline(timeout, "The code"):
                self._answered(process, kept, said)
        except TimeoutExceeded:
            heeded = self._interrupted(process, kept, said)
            why = (_INTERRUPTED if heeded else _KILLED).format(timeout)
            result = self._result(process, kept, said, begun)
            raise PythonTimeout(why, result=result) from None
        result = self._result(process, kept, said, begun)
        self._check()
        return result

    def _interrupted(self, process: Process, kept: Kept, said: Said) -> bool:
        """Have the code end; whether the interpreter is still there then."""
        try:
            with deadline(YIELD, "The interrupt"):
                process.signal("SIGINT")
                self._answered(process, kept, said)
        except TimeoutExceeded:
            self._end()
        return self._settled

    def _answered(self, process: Process, kept: Kept, said: Said) -> None:
        """Take in what comes, until the answer is there, or the interpreter has ended."""
        for output in process:
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

    def _result(self, process: Process, kept: Kept, said: Said, begun: float) -> PythonResult:
        answer = python_answer(said.answer) if self._settled else None
        if answer is None:
            what = f"ended with {process.exit_code}" if not self._settled else "was imitated"
            message = f"The interpreter {what}; what it had defined is gone."
            answer = {"error": {"name": "InterpreterEnded", "message": message, "traceback": ""}}
            self._settled = False
        return python_result(kept, answer, time.monotonic() - begun)

    def _check(self) -> None:
        """An interpreter whose answer nobody has heard is none any more."""
        if not self._settled:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()
