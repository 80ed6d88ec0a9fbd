"""The interpreter that `run_python` has a sandbox run, run here; and what it says taken apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sublet.sdk import _interpreter
from sublet.sdk._async import sandbox_python
from sublet.sdk._frames import Frames
from sublet.sdk.sandbox_results import Output, python_answer

MARK = "0123456789abcdef"
BARE = ["-S", "-c", "import sys; sys.modules['json'] = None; exec(sys.argv[1])"]
"""As Debian's python3-minimal, which has no json."""


class Interpreter:
    """One at work."""

    def __init__(self, options: list[str]) -> None:
        program = Path(_interpreter.__file__).read_text()
        argv = [sys.executable, *(options or ["-c"]), program]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.frames = Frames(MARK.encode())
        self.say(MARK)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def __call__(self, code: str) -> tuple[dict[str, Any], str]:
        """What it answers, and what the code wrote."""
        self.say(code.encode().hex())
        answer, written = b"", b""
        assert self.process.stdout is not None
        while True:
            for framed, data in self.frames.feed(self.process.stdout.read1(65536)):
                if framed and not data:
                    return json.loads(answer), written.decode()
                answer += data if framed else b""
                written += b"" if framed else data


@pytest.fixture(params=[[], BARE], ids=["python3", "python3-minimal"])
def run(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    made = Interpreter(request.param)
    yield made
    made.process.kill()
    made.process.communicate()


def test_it_keeps_what_it_has_defined(run: Interpreter) -> None:
    assert run("x = 6\nprint('hi')") == ({}, "hi\n")
    assert run("x * 7") == ({"repr": "42", "value": 42}, "")
    assert run("__name__") == ({"repr": "'__main__'", "value": "__main__"}, "")


@pytest.mark.parametrize("text", ["", '"\\', "ä€😀\n\0", "\ud800", "x" * 10_000])
def test_texts_of_all_kinds(run: Interpreter, text: str) -> None:
    assert run(ascii(text))[0]["value"] == text


def test_what_json_has_not_has_a_repr_alone(run: Interpreter) -> None:
    assert run("1j") == ({"repr": "1j"}, "")
    assert run("None") == ({}, "")
    assert run("True") == ({"repr": "True", "value": True}, "")


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("class A:\n def __repr__(self): raise KeyError('no')\nA()", "KeyError", "'no'"),
        ("class E(Exception):\n def __str__(self): raise E\nraise E", "E", ""),
        ("input()", "EOFError", "EOF when reading a line"),
        ("a b", "SyntaxError", "invalid syntax (<cell 1>, line 1)"),
    ],
)
def test_errors_are_told(run: Interpreter, code: str, name: str, message: str) -> None:
    error = run(code)[0]["error"]
    assert (error["name"], error["message"]) == (name, message)
    assert run("'still there'")[0]["value"] == "still there"


def test_a_traceback_shows_the_code_and_nothing_of_ours(run: Interpreter) -> None:
    run("def f():\n    return 1 / 0")
    lines = run("f()")[0]["error"]["traceback"].splitlines()
    assert lines[1] == '  File "<cell 2>", line 1, in <module>'
    assert "    return 1 / 0" in lines
    assert not any("exec(" in line or "_run" in line for line in lines)


def test_code_may_close_its_streams(run: Interpreter) -> None:
    run("import os; os.close(1); os.close(2)")
    assert run("7")[0]["value"] == 7


def test_an_interrupt_ends_the_code(run: Interpreter) -> None:
    code = "import os, signal\nx = 5\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: x = 5"
    assert run(code)[0]["error"]["name"] == "KeyboardInterrupt"
    run.process.send_signal(2)  # while none runs, it means nothing
    assert run("x")[0]["value"] == 5


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_are_found_in_pieces_of_any_size(size: int) -> None:
    data = b"out" + b"MARK0005hello" + b"MAR MARK0000" + b"MARK" + b"0002ok" + b"tail"
    frames, found = Frames(b"MARK"), {True: b"", False: b""}
    pieces = []
    for start in range(0, len(data), size):
        for framed, piece in frames.feed(data[start : start + size]):
            found[framed] += piece
            pieces += [piece] if framed else []
    assert found[False] == b"outMAR tail"
    assert pieces == [b"hello", b"", b"ok"]


@pytest.mark.parametrize(
    "forged",
    [
        b"", b"no JSON", b"[]", b"3", b"[" * 100000, b'{"error": "text"}', b'{"error": {"a": "b"}}',
        b'{"error": {"name": 1, "message": "", "traceback": ""}}', b'{"repr": 5}', b"\xff",
    ],
)  # fmt: skip
def test_what_code_says_in_the_interpreters_place_is_no_answer(forged: bytes) -> None:
    assert python_answer(forged) is None
    assert python_answer(b'{"repr": "1", "value": 1}') == {"repr": "1", "value": 1}


class Imitation:
    """A process in a sandbox in which code writes frames of its own."""

    exit_code: int | None = None

    def __init__(self, *frames: bytes) -> None:
        self._frames = iter(frames)

    def __aiter__(self) -> Imitation:
        return self

    async def __anext__(self) -> Output:
        frame = next(self._frames, None)
        if frame is None:
            raise StopAsyncIteration
        return Output("stderr" if frame == b"end" else "stdout", self.framed(frame))

    def framed(self, frame: bytes) -> bytes:
        data = b"" if frame == b"end" else frame
        return MARK.encode() + b"%04d" % len(data) + data

    async def write(self, data: str) -> None:
        pass

    async def close(self) -> None:
        self.exit_code = 137


async def test_frames_without_end_cost_little_and_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox_python, "ANSWER_MOST", 5000)
    process = Imitation(*[b'{"repr": "' + b"x" * 4000] * 9, b"", b"end")
    python = sandbox_python.AsyncPython(cast(Any, None), "box")
    python._process = cast(Any, process)
    python._frames = {name: Frames(MARK.encode()) for name in ("stdout", "stderr")}
    done = await python.run("flood()", 10, 1000)
    assert done.error is not None
    assert done.error.name == "InterpreterEnded"
    assert process.exit_code == 137
