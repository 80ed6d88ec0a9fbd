"""A process in the foreground: terminal, standard streams, signals and exit code."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
PATIENCE = 3
"""How many Ctrl-C a process may ignore before it is killed."""


def relay(session: Any, *, interactive: bool, tty: bool) -> int:
    """Carry streams and signals until the process ends; its exit code."""
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        wakeup = stack.enter_context(_signals(tty))
        if tty and sys.stdin.isatty():
            stack.enter_context(_raw())
            _resize(session)
        if not interactive:
            session.close_input()
        return _loop(session, wakeup, interactive)


def _loop(session: Any, wakeup: int, interactive: bool) -> int:
    stdin = sys.stdin.fileno() if interactive else -1
    interrupts = 0
    while True:
        if not (session.ready() or session.connection.pending()):
            watched = [session.connection, wakeup, *([stdin] if stdin >= 0 else [])]
            readable, _, _ = select.select(watched, [], [])
            if wakeup in readable:
                for number in os.read(wakeup, 64):
                    interrupts += number == signal.SIGINT
                    _forward(session, number, interrupts)
            if stdin in readable and not _feed(session, stdin):
                stdin = -1
            if session.connection not in readable:
                continue
        message = session.receive()
        if isinstance(message, bytes):
            _write(message[0], message[1:])
        elif message["type"] == "exit":
            return int(message["code"])


def _feed(session: Any, stdin: int) -> bool:
    """Pass on what can be read from standard input; False at its end."""
    data = os.read(stdin, 65536)
    if data:
        session.send_input(data)
    else:
        session.close_input()
    return bool(data)


def _forward(session: Any, number: int, interrupts: int) -> None:
    if number == signal.SIGWINCH:
        _resize(session)
    elif number == signal.SIGINT and interrupts >= PATIENCE:
        session.signal("SIGKILL")
    else:
        session.signal(signal.Signals(number).name)


def _resize(session: Any) -> None:
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(sys.stdin.fileno())
        session.resize(size.lines, size.columns)


def _write(stream: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(stream, view) :]


@contextlib.contextmanager
def _signals(tty: bool) -> Iterator[int]:
    """A descriptor from which the numbers of the signals that come in can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = (*FORWARDED, signal.SIGWINCH) if tty else FORWARDED
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """This terminal passes every key on; as before at the end (termios(3))."""
    import termios  # here: only terminals need them
    import tty as terminal

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    terminal.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
