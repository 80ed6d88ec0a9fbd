"""What `sublet run` and `sublet exec` import: start-up time is the user's latency."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

OWN = {
    "sublet",
    "sublet.cli",
    "sublet.cli.flags",
    "sublet.cli.foreground",
    "sublet.cli.main",
    "sublet.cli.output",
    "sublet.cli.run",
    "sublet.domain",
    "sublet.domain.errors",
    "sublet.domain.units",
    "sublet.sdk",
    "sublet.sdk._http",
    "sublet.sdk._launch",
    "sublet.sdk._marks",
    "sublet.sdk._sync",
    "sublet.sdk._sync.billing",
    "sublet.sdk._sync.backups",
    "sublet.sdk._sync.calls",
    "sublet.sdk._sync.client",
    "sublet.sdk._sync.connection",
    "sublet.sdk._sync.files",
    "sublet.sdk._sync.images",
    "sublet.sdk._sync.storage",
    "sublet.sdk._sync.instances",
    "sublet.sdk._sync.market",
    "sublet.sdk._sync.networks",
    "sublet.sdk._sync.pools",
    "sublet.sdk._sync.schedules",
    "sublet.sdk._sync.wire",
    "sublet.sdk._websocket",
    "sublet.sdk.results",
}

DEAR = {"asyncio", "click", "dataclasses", "datetime", "hashlib", "inspect", "logging", "pathlib"}
DEAR |= {"shlex", "site", "subprocess", "tempfile", "termios", "threading", "typing", "urllib"}
"""What takes milliseconds to import, and what a plain command can do without."""

PROGRAM = """
import os, sys
sys.path.append({root!r})
ended = os._exit
def leave(code):
    print(*sys.modules, flush=True)
    ended(code)
os._exit = leave
sys.argv = {argv!r}
from sublet.cli import main
from sublet.sdk import _launch
_launch.socket_path = lambda: {path!r}
main.main()
"""


def serve(listener: socket.socket) -> None:
    """A daemon that says of what it is asked to run that it ended with 7."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(30)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        connection.recv(65536)
        for text in (b'{"type": "created", "instance": {}}', b'{"type": "exit", "code": 7}'):
            connection.sendall(bytes([0x81, len(text)]) + text)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "--rm", "-m", "256m", "--cpus", "2", "-e", "A=b", "debian:bookworm", "true"],
        ["exec", "-w", "/", "web", "true"],
    ],
)
def test_the_hot_path_imports_little(tmp_path: Path, argv: list[str]) -> None:
    path, root = str(tmp_path / "socket"), str(Path(__file__).parents[2])
    code = PROGRAM.format(root=root, argv=["sublet", *argv], path=path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(30)
        daemon = threading.Thread(target=serve, args=[listener])
        daemon.start()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        daemon.join()
    assert (done.returncode, done.stderr) == (7, "")
    modules = set(done.stdout.split())
    assert {name for name in modules if name.partition(".")[0] == "sublet"} == OWN
    assert {name.partition(".")[0] for name in modules} & DEAR == set()
