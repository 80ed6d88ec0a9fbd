"""A connection to the daemon, blocking."""

from __future__ import annotations

import select
import socket
import time

from sublet.sdk import _launch

_SIZE = 1 << 17


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
                connected.connect(path or _launch.socket_path())
                return cls(connected)
            except OSError as error:
                connected.close()
                if path:
                    raise _launch.silent(path) from error
                time.sleep(launch.again(error))

    def send(self, data: bytes) -> None:
        """Send all; what arrives meanwhile is kept, so that neither end waits for the other.

        An end that has gone is for `receive` to tell.
        """
        view = memoryview(data)
        while view:
            readable, _, _ = select.select([self._socket], [self._socket], [])
            if readable:
                piece = self._recv()
                if not piece:
                    return
                self._received.append(piece)
                continue
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT) :]
            except ConnectionError:
                return

    def receive(self) -> bytes:
        """Some bytes; none at the end."""
        return self._received.pop(0) if self._received else self._recv()

    def _recv(self) -> bytes:
        try:
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
