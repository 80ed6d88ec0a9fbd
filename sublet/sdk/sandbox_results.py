"""What sandboxes answer, in types. All times are seconds, all sizes bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from sublet.domain.errors import InvalidArgument, TimeoutExceeded
from sublet.domain.file_events import FileChange, FileEvent
from sublet.domain.file_info import FileInfo, FileType

__all__ = [
    "CommandTimeout",
    "FileChange",
    "FileEvent",
    "FileInfo",
    "FileType",
    "Isolation",
    "Output",
    "PythonError",
    "PythonResult",
    "PythonTimeout",
    "Result",
]

LIMIT = 16 << 20
"""Bytes of each stream that a `Result` keeps, unless another limit is asked for."""


class Isolation(StrEnum):
    """How far a sandbox is from its host: a container shares its kernel, a VM has its own."""

    CONTAINER = "container"
    VM = "vm"


def isolation_of(text: str) -> Isolation:
    """The isolation of this name. Raises InvalidArgument."""
    if text not in tuple(Isolation):
        raise InvalidArgument(
            f"There is no isolation '{text}'.", hint="Write 'container', or 'vm'."
        )
    return Isolation(text)


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `exit_code` is 128 + n where signal n killed it; `seconds` from the
    request to the end; `truncated`: there was more output than was to be kept."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    seconds: float
    truncated: bool = False

    @property
    def stdout(self) -> str:
        """What it wrote to standard output, as text; bytes that are none are U+FFFD."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What it wrote to standard error, as text."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what a command writes, as it comes: it may end within a line or a character."""

    stream: Literal["stdout", "stderr"]
    data: bytes

    @property
    def text(self) -> str:
        """The piece as text; bytes that are none are U+FFFD."""
        return self.data.decode(errors="replace")


class CommandTimeout(TimeoutExceeded):
    """A command took longer than it may, and was killed. `result` is what it had written by then;
    its exit code is 137."""

    def __init__(self, message: str, *, hint: str = "", result: Result) -> None:
        super().__init__(message, hint=hint)
        self.result = result


@dataclass(frozen=True, slots=True)
class PythonError:
    """What went wrong: the exception's name, its message, and the traceback as Python shows it."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class PythonResult:
    """How code ended. `repr` is that of its last expression, empty where that is no expression or
    None; `value` the same as JSON has it, None where JSON has it not. `error`: what it raised."""

    stdout: str
    stderr: str
    value: Any = None
    repr: str = ""
    error: PythonError | None = None
    seconds: float = 0.0
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether it raised nothing."""
        return self.error is None


class PythonTimeout(TimeoutExceeded):
    """Code took longer than it may, and was interrupted, or its interpreter killed. `result` is
    what it had written by then."""

    def __init__(self, message: str, *, hint: str = "", result: PythonResult) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class Kept:
    """What a command has written until now, of each stream at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._written: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.truncated = False

    def add(self, stream: int, data: bytes) -> None:
        written = self._written[stream]
        room = self._limit - len(written)
        written += data[: max(0, room)]
        self.truncated = self.truncated or len(data) > room

    def result(self, code: int, seconds: float) -> Result:
        out, err = bytes(self._written[1]), bytes(self._written[2])
        return Result(code, out, err, seconds, self.truncated)


_NO_ERROR = {"name": "", "message": "", "traceback": ""}


def python_answer(data: bytes | bytearray) -> dict[str, Any] | None:
    """What an interpreter has answered; None for what it never would: the code that it runs can
    write in its place."""
    try:
        answer = json.loads(data)
        error = answer.get("error", _NO_ERROR)
        texts = [answer.get("repr", ""), *error.values()]
    except (ValueError, AttributeError, RecursionError):
        return None
    fits = error.keys() == _NO_ERROR.keys() and all(isinstance(text, str) for text in texts)
    return answer if fits else None


def python_result(kept: Kept, answer: Mapping[str, Any], seconds: float) -> PythonResult:
    """What an interpreter has answered, in types."""
    written = kept.result(0, seconds)
    error = PythonError(**answer["error"]) if "error" in answer else None
    return PythonResult(
        written.stdout,
        written.stderr,
        answer.get("value"),
        answer.get("repr", ""),
        error,
        seconds,
        written.truncated,
    )


def labels_of(labels: Mapping[str, str] | None) -> dict[str, str]:
    """The labels of a sandbox's instance."""
    return {**(labels or {}), "io.sublet.sandbox": "1"}


def info(row: dict[str, Any]) -> FileInfo:
    """What is at a path, from its JSON."""
    return FileInfo(**{**row, "type": FileType(row["type"])})


def file_event(row: Mapping[str, Any]) -> FileEvent:
    """What happened, from its JSON."""
    return FileEvent(FileChange(row["type"]), row["path"], row["to"])
