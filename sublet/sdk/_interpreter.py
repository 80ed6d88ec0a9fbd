"""The program that `run_python` has python3 run in a sandbox: its text is sent there. It needs
Python 3.7, nothing of ours, and no more than Debian's python3-minimal has.

The first line of standard input is the mark, each further one code, in hexadecimal digits. What
the code writes goes where it always goes. The answer is JSON in frames on standard output: the
mark, four digits, and so many bytes, each in one write(2) that no other process's can be in the
midst of (pipe(7), PIPE_BUF); an empty frame ends it, and one on standard error as well.
"""

from __future__ import annotations

import ast
import linecache
import os
import signal
import sys
import traceback
import types

try:
    import json
except ImportError:
    json = None  # type: ignore[assignment]

FRAME = 3500
REPR_MOST, VALUE_MOST = 1 << 20, 4 << 20


class Interpreter:
    """Runs code in a module `__main__` of its own, which stays."""

    def __init__(self) -> None:
        self._control = os.fdopen(os.dup(0), "rb")
        self._streams = os.dup(1), os.dup(2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._mark = self._control.readline().strip()
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = self._module
        self._count = 0

    def serve(self) -> None:
        """Do what is asked, until nobody asks any more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            line = self._control.readline()
            if not line:
                return
            answer = self._answer(bytes.fromhex(line.decode()).decode())
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:  # the code has closed it, or put something else there
                    continue
            self._say(0, answer.encode())
            self._say(1, b"")

    def _say(self, stream: int, data: bytes) -> None:
        for start in [*range(0, len(data), FRAME), len(data)]:
            piece = data[start : start + FRAME]
            os.write(self._streams[stream], self._mark + b"%04d" % len(piece) + piece)

    def _answer(self, code: str) -> str:
        """What the last expression was, or the error. Only in here an interrupt means anything."""
        answer = ""
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                answer = _shown(self._run(code))
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:
            answer = f'{{"error": {_described(error)}}}'
        return answer

    def _run(self, code: str) -> object:
        self._count += 1
        name = f"<cell {self._count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        space = self._module.__dict__
        exec(compile(tree, name, "exec", dont_inherit=True), space)
        if not isinstance(last, ast.Expr):
            return None
        whole = ast.Expression(last.value)
        return eval(compile(whole, name, "eval", dont_inherit=True), space)


def _shown(value: object) -> str:
    if value is None:
        return "{}"
    fields = ['"repr": ' + _quoted(repr(value)[:REPR_MOST])]
    try:
        text = json.dumps(value) if json else _scalar(value)
        fields += ['"value": ' + text] if len(text) <= VALUE_MOST else []
    except Exception:  # it is nothing that JSON has
        fields = fields[:1]
    return "{" + ", ".join(fields) + "}"


def _scalar(value: object) -> str:
    """As JSON has it, without the library. Raises TypeError."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    raise TypeError


def _quoted(text: str) -> str:
    """A string of JSON (RFC 8259, section 7)."""
    data = text.encode("utf-16-be", "surrogatepass")
    units = [data[n] << 8 | data[n + 1] for n in range(0, len(data), 2)]
    plain = set(range(0x20, 0x7F)) - {0x22, 0x5C}
    return '"' + "".join(chr(u) if u in plain else f"\\u{u:04x}" for u in units) + '"'


def _described(error: BaseException) -> str:
    """Name, message, and the traceback without what is ours."""
    frames = error.__traceback__
    while frames and not frames.tb_frame.f_code.co_filename.startswith("<cell "):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames)
        message = str(error)
    except Exception:
        lines, message = [], ""
    fields = {
        "name": type(error).__name__,
        "message": message[:REPR_MOST],
        "traceback": "".join(lines)[:REPR_MOST],
    }
    return "{" + ", ".join(f'"{name}": {_quoted(text)}' for name, text in fields.items()) + "}"


if __name__ == "__main__":
    for _each in (sys.stdout, sys.stderr):
        if hasattr(_each, "reconfigure"):
            _each.reconfigure(line_buffering=True, errors="backslashreplace")
    Interpreter().serve()
