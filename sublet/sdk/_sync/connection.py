"""A connection to the daemon, blocking."""

from __future__ import annotations

import select
import socket
import time
from _thread import _local  # `threading` takes milliseconds to import

from sublet.sdk import _launch

_SIZE = 1 << 17
clock = _local()
"""Of each thread: `until`, if it is there, is when its calls must have ended (deadline.py)."""


def left() -> float | None:
    """Seconds that a wait may take; None: any number."""
    until = getattr(clock, "until", float("inf"))
    return None if until == float("inf") else max(0.001, until - time.monotonic())


class Connection:
    """Bytes to and from the daemon's socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received: list[bytes] = []

    @classmethod
    def open(cls, path: str = "") -> Connection:
        """Connect to `path`, or to this environment's daemon, which is started if need be."""
        launch = _launch.Launch()
        while True:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connected.settimeout(left())
                connected.connect(path or _launch.socket_path())
                return cls(connected)
            except OSError as error:
                connected.close()
                if isinstance(error, TimeoutError):
                    raise
                if path:
                    raise _launch.silent(path) from error
                time.sleep(launch.again(error))

    def send(self, data: bytes) -> None:
        """Send all; what arrives meanwhile is kept, so that neither end waits for the other.

        An end that has gone is for `receive` to tell. Raises TimeoutError.
        """
        view = memoryview(data)
        while view:
            readable, writable, _ = select.select([self._socket], [self._socket], [], left())
            if readable:
                piece = self._recv()
                if not piece:
                    return
                self._received.append(piece)
                continue
            if not writable:
                raise TimeoutError
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT) :]
            except ConnectionError:
                return

    def receive(self) -> bytes:
        """Some bytes; none at the end. Raises TimeoutError."""
        return self._received.pop(0) if self._received else self._recv()

    def _recv(self) -> bytes:
        try:
            self._socket.settimeout(left())
            return self._socket.recv(_SIZE)
        except ConnectionError:
            return b""

    def pending(self) -> bool:
        """Whether `receive` returns at once with what came during `send`."""
        return bool(self._received)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
