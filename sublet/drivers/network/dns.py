"""Names between instances: one dnsmasq(8) a daemon, listening on the bridge.

It watches a directory that holds a file per instance, in the format of hosts(5), so that a
name comes and goes with one rename, without a reload. It forwards what it does not know to
the resolvers of the host's /etc/resolv.conf, whose changes it follows. It puts itself into
the background, survives the daemon, and runs as nobody where nobody can read the directory.

Not aardvark-dns: on each change its version 1.4 closes and opens its sockets, and one query
in thirteen was lost while containers started; each costs a client five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
from pathlib import Path

from sublet.domain.names import validate_name
from sublet.drivers import run
from sublet.drivers.network.identity import checked

DEADLINE = 5.0

Entry = tuple[str, tuple[str, ...]]
"""An address and its names."""


def command(directory: Path, pid_file: Path, gateway: str, user: str) -> list[str]:
    """dnsmasq's argument list. Plain names that it does not know go no further."""
    return [
        "dnsmasq",
        "--conf-file=/dev/null",
        "--no-hosts",
        f"--hostsdir={directory}",
        f"--listen-address={gateway}",
        "--bind-interfaces",
        "--except-interface=lo",
        "--domain-needed",
        "--cache-size=1000",
        f"--user={user}",
        f"--pid-file={pid_file}",
    ]


def resolver_text(gateway: str, host: str) -> str:
    """An instance's /etc/resolv.conf, `host` being the host's: its search list and options.

    Names without a dot are asked as they are first (`ndots:0`), so that the search list
    cannot shadow an instance.
    """
    search: list[str] = []
    options: list[str] = []
    for word, *values in (line.split() for line in host.splitlines() if line.strip()):
        if word in ("search", "domain"):
            search = values
        elif word == "options":
            options += [value for value in values if value not in ("trust-ad", "edns0")]
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"nameserver {gateway}", f"search {' '.join(search)}" if search else ""]
    return "\n".join([*filter(None, lines), f"options {' '.join(options)}"]) + "\n"


class Names:
    """The names of one daemon's network. `directory` is for the hosts files alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pid_file = directory.with_name(f"{directory.name}.pid")
        self._gateway = ""
        self._pid = 0
        self._starting = asyncio.Lock()

    def adopt(self, gateway: str) -> None:
        """Take over what an earlier daemon left: the names, and the process if it lives."""
        self._gateway = gateway
        self._pid = self._find()
        for unfinished in self._directory.glob(".*"):
            unfinished.unlink(missing_ok=True)

    def entries(self) -> dict[str, Entry]:
        """Address and names, by instance id."""
        found: dict[str, Entry] = {}
        for file in self._directory.glob("[!.]*"):
            with contextlib.suppress(OSError, ValueError):
                address, *names = file.read_text().split()
                found[file.name] = (address, tuple(names))
        return found

    async def add(self, instance_id: str, address: str, names: list[str]) -> None:
        """The names, in place of those before, resolve to the address.

        Raises InvalidArgument for what is no name, ProcessFailed when dnsmasq does not start
        (another program has port 53 of all addresses), ToolMissing.
        """
        text = " ".join([address, *map(validate_name, names)])
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._directory / f".{checked(instance_id)}"
        new.write_text(text + "\n")
        new.replace(self._directory / instance_id)
        await self.ensure()

    def remove(self, instance_id: str) -> None:
        """The instance's names are gone, if there were any."""
        (self._directory / checked(instance_id)).unlink(missing_ok=True)

    async def ensure(self) -> None:
        """The process runs."""
        if not self._ours(self._pid):
            async with self._starting:
                self._pid = self._find()
                if not self._pid:
                    await self._start()

    def alive(self) -> bool:
        """Whether the process runs, or need not."""
        return self._ours(self._pid) or not self.entries()

    def stop(self) -> None:
        """The process and its files are gone. Blocks, DEADLINE at most."""
        for pid in self._strays():
            _end(pid)
        self._pid = 0
        shutil.rmtree(self._directory, ignore_errors=True)
        self._pid_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        for stray in self._strays():  # its pid file went, with the directory that it watched
            await asyncio.to_thread(_end, stray)
        user = "nobody" if _open_to_all(self._directory) else "root"
        argv = command(self._directory, self._pid_file, self._gateway, user)
        await run.run(argv, timeout=DEADLINE)
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
        if not pid:
            return False
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            words = (process / "cmdline").read_bytes().split(b"\0")
            named = (process / "comm").read_text() == "dnsmasq\n"
            return named and f"--hostsdir={self._directory}".encode() in words
        return False


def _open_to_all(directory: Path) -> bool:
    """Whether every user can get into the directory and read it."""
    above = all(parent.stat().st_mode & 0o001 for parent in directory.resolve().parents)
    return above and directory.stat().st_mode & 0o005 == 0o005


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(DEADLINE * 1000)
        finally:
            os.close(descriptor)
