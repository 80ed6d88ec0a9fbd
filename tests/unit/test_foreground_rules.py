"""A foreground session goes on while the daemon sends what is no message."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from sublet.cli import foreground
from sublet.sdk._sync.wire import Session

PING, PARTIAL = b"\x89\x04ping", b"\x82\x05\x01ab"
"""A control frame (RFC 6455, 5.5.2), and the beginning of a message of five bytes."""


def received(peer: socket.socket) -> tuple[int, bytes]:
    """The next of a client's frames: opcode and payload, which is short."""
    head = peer.recv(2, socket.MSG_WAITALL)
    size = head[1] & 0x7F
    assert size < 126, "a short one"
    mask = peer.recv(4, socket.MSG_WAITALL)
    data = peer.recv(size, socket.MSG_WAITALL) if size else b""
    return head[0] & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


def daemon(
    listener: socket.socket, odd: bytes, rest: bytes, heard: list[tuple[int, bytes]]
) -> None:
    """Sends what is no message yet, and the rest only when it has been given input."""
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(10)
        while not peer.recv(1 << 16).endswith(b"\r\n\r\n"):
            pass
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + odd)
        while not heard or heard[-1] != (2, b"typed\n"):
            heard.append(received(peer))
        text = json.dumps({"type": "exit", "code": 7}).encode()
        peer.sendall(rest + bytes([0x81, len(text)]) + text)
        peer.recv(1 << 16)


@pytest.mark.parametrize(("odd", "rest"), [(PING, b""), (PARTIAL, b"cd")])
def test_input_is_passed_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: bytes, rest: bytes
) -> None:
    heard: list[tuple[int, bytes]] = []
    reader, writer = os.pipe()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        os.fdopen(reader) as stdin,
        os.fdopen(writer, "wb", buffering=0) as typing,
    ):
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        thread = threading.Thread(target=daemon, args=(listener, odd, rest, heard))
        thread.start()
        monkeypatch.setattr("sys.stdin", stdin)
        session = Session.open("/v1/run", {}, path=str(tmp_path / "socket"))
        later = threading.Timer(0.3, typing.write, [b"typed\n"])
        later.start()
        assert foreground.relay(session, interactive=True, tty=False) == 7
        thread.join()
        later.join()
    assert ((10, b"ping") in heard) is (odd == PING), "it is answered"
