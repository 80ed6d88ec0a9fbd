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


def relay(
    session: Any,
    *,
    interactive: bool,
    tty: bool,
    ends_input: bool = True,
    detach_keys: str = "",
    sig_proxy: bool = True,
) -> int:
    """Carry streams and signals until the process ends; its exit code, 0 after detaching.

    `ends_input`: the process reads an end of file where this one does. `detach_keys` are
    watched for on a terminal only.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        wakeup = stack.enter_context(_signals(tty, sig_proxy))
        detaching = None
        if tty and sys.stdin and sys.stdin.isatty():
            if interactive:
                detaching = _detaching(detach_keys)
            stack.enter_context(_raw())
            _resize(session)
        if interactive or not ends_input:
            session.say(type="taken")
        else:
            session.close_input()
        return _loop(session, wakeup, _Input(session, interactive, ends_input, detaching))


def _detaching(keys: str) -> Any:
    from sublet.cli.keys import DEFAULT, Detaching, parse_keys

    return Detaching(parse_keys(keys or DEFAULT))


class _Input:
    """Standard input, as long as it is passed on; `detaching` watches for the keys."""

    def __init__(self, session: Any, interactive: bool, ends: bool, detaching: Any) -> None:
        self._session, self._ends, self._detaching = session, ends, detaching
        self.open = [sys.stdin.fileno()] if interactive and sys.stdin else []
        if interactive and not self.open and ends:  # it is closed: `sublet run -i … <&-`
            session.close_input()

    def feed(self) -> bool:
        """Pass on what can be read; False when the user detaches."""
        data = os.read(self.open[0], 65536)
        if not data:
            self.open = []
            if self._ends:
                self._session.close_input()
            return True
        if self._detaching:
            data = self._detaching.feed(data)
        if data:
            self._session.send_input(data)
        return not (self._detaching and self._detaching.done)


def _loop(session: Any, wakeup: int, stdin: _Input) -> int:
    interrupts = 0
    while True:
        if not (session.ready() or session.connection.pending()):
            readable, _, _ = select.select([session.connection, wakeup, *stdin.open], [], [])
            if wakeup in readable:
                for number in os.read(wakeup, 64):
                    interrupts += number == signal.SIGINT
                    _forward(session, number, interrupts)
            if stdin.open and stdin.open[0] in readable and not stdin.feed():
                return 0
            if session.connection not in readable:
                continue
        if not session.ready():
            session.take()
            continue
        message = session.receive()
        if isinstance(message, bytes):
            _write(message[0], message[1:])
        elif message["type"] == "exit":
            return int(message["code"])


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
def _signals(tty: bool, proxy: bool) -> Iterator[int]:
    """A descriptor from which the numbers of the signals that come in can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = [*(FORWARDED if proxy else ()), *([signal.SIGWINCH] if tty else [])]
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
