"""A resolver: one dnsmasq(8), listening on a bridge.

It watches directories of hosts files (hosts.py), so that a name comes and goes with one rename,
without a reload. It forwards what it does not know to the resolvers of the host's
/etc/resolv.conf, whose changes it follows. It puts itself into the background, survives the
daemon, and runs as nobody where nobody can read the directories.

Not aardvark-dns: on each change its version 1.4 closes and opens its sockets, and one query
in thirteen was lost while containers started; each costs a client five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import ProcessFailed
from sublet.drivers import run

DEADLINE = 5.0
PORT = 53
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Listening:
    """What a resolver knows (`directories`), where it listens, whether it asks other resolvers."""

    directories: tuple[Path, ...]
    gateway: str
    upstream: bool = True
    port: int = PORT


def command(what: Listening, pid_file: Path, user: str) -> list[str]:
    """dnsmasq's argument list. Plain names that it does not know go no further."""
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--no-hosts",
        *(f"--hostsdir={directory}" for directory in what.directories),
        f"--listen-address={what.gateway}",
        f"--port={what.port}",
        "--bind-interfaces",
        "--except-interface=lo",
        "--domain-needed",
        *([] if what.upstream else ["--no-resolv"]),
        "--cache-size=1000",
        f"--user={user}",
        f"--pid-file={pid_file}",
    ]


class Resolver:
    """One process. `what.port` other than 53 is where the search for a free one begins."""

    def __init__(self, what: Listening, pid_file: Path) -> None:
        self.port = what.port
        self._what = what
        self._pid_file = pid_file
        self._pid = 0
        self._starting = asyncio.Lock()

    def adopt(self) -> None:
        """Take over what an earlier daemon left."""
        self._pid = self._find()
        if self._pid:
            words = _words(self._pid)
            self.port = next((int(w[7:]) for w in words if w.startswith("--port=")), PORT)

    async def ensure(self) -> None:
        """The process runs. Raises ProcessFailed when something has its port, ToolMissing."""
        if not self._ours(self._pid):
            async with self._starting:
                self._pid = self._find()
                if not self._pid:
                    await self._start()

    def alive(self) -> bool:
        """Whether the process runs, or is about to."""
        return self._starting.locked() or self._ours(self._pid)

    def stop(self) -> None:
        """The process is gone. Blocks, DEADLINE at most."""
        for pid in self._strays():
            end(pid)
        self._pid = 0
        self._pid_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        for stray in self._strays():  # its pid file went, with the directory that it watched
            await asyncio.to_thread(end, stray)
        user = "nobody" if all(map(_open_to_all, self._what.directories)) else "root"
        tries = 1 if self.port == PORT else _TRIES
        for number in range(tries):
            what = Listening(
                self._what.directories, self._what.gateway, self._what.upstream, self.port
            )
            try:
                await run.run(command(what, self._pid_file, user), timeout=DEADLINE)
                break
            except ProcessFailed:
                if number == tries - 1:
                    raise
                self.port += 1
        self._pid = self._find()

    def _find(self) -> int:
        """The process's id by its pid file, if it is really ours; else 0."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            return pid if self._ours(pid) else 0
        return 0

    def _strays(self) -> list[int]:
        """Every dnsmasq that is ours, whether or not a file names it."""
        pids = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in pids if self._ours(pid)]

    def _ours(self, pid: int) -> bool:
        wanted = [f"--hostsdir={directory}" for directory in self._what.directories]
        return bool(pid) and [w for w in _words(pid) if w.startswith("--hostsdir=")] == wanted


def watching(directory: Path) -> dict[int, list[Path]]:
    """Every dnsmasq that watches directories in this one, and which."""
    found: dict[int, list[Path]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        watched = [Path(w[11:]) for w in _words(pid) if w.startswith("--hostsdir=")]
        if watched and all(path.parent == directory for path in watched):
            found[pid] = watched
    return found


def _words(pid: int) -> list[str]:
    """The command line of a dnsmasq; nothing of another program."""
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        if (process / "comm").read_text() == "dnsmasq\n":
            return (process / "cmdline").read_text(errors="replace").split("\0")
    return []


def _open_to_all(directory: Path) -> bool:
    """Whether every user can get into the directory and read it."""
    above = all(parent.stat().st_mode & 0o001 for parent in directory.resolve().parents)
    return above and directory.stat().st_mode & 0o005 == 0o005


def end(pid: int) -> None:
    """The process is gone. Blocks, DEADLINE at most."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(DEADLINE * 1000)
        finally:
            os.close(descriptor)
