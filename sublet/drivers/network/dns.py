"""Names between instances: one aardvark-dns a daemon, listening on the bridge.

It reads one file per network (first line: listening addresses; then per instance id,
addresses, names), reads it again on SIGHUP, forwards what it does not know to the
resolvers in the host's /etc/resolv.conf, and puts itself into the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import shutil
import signal
from asyncio.subprocess import DEVNULL
from pathlib import Path

from sublet.domain.errors import ProcessFailed, ToolMissing
from sublet.drivers import run

log = logging.getLogger(__name__)

DEADLINE = 5.0
_PACE = 0.02
"""Seconds between two reloads at least: changes in between are written together."""

_PROGRAM = "aardvark-dns"
_PLACES = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/libexec/podman")


def config_text(gateway: str, entries: dict[str, tuple[str, tuple[str, ...]]]) -> str:
    """A network's file in aardvark-dns's format; `entries`: address and names by id."""
    lines = [gateway]
    for instance_id, (address, names) in sorted(entries.items()):
        lines.append(f"{instance_id} {address}  {','.join(names)}")
    return "\n".join(lines) + "\n"


def parse_config(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The entries of a file that `config_text` wrote."""
    entries = {}
    for line in text.splitlines()[1:]:
        instance_id, address, _, names = line.split(" ")
        entries[instance_id] = (address, tuple(names.split(",")))
    return entries


def resolver_text(gateway: str, host: str) -> str:
    """An instance's /etc/resolv.conf, `host` being the host's: its search list and options.

    Names without a dot are asked as they are first (`ndots:0`), so that the search list
    cannot shadow an instance.
    """
    lines = [f"nameserver {gateway}"]
    options = ["ndots:0"]
    for word, *values in (line.split() for line in host.splitlines() if line.strip()):
        if word in ("search", "domain"):
            lines.append(f"search {' '.join(values)}")
        elif word == "options":
            kept = [value for value in values if value not in ("trust-ad", "edns0")]
            if any(value.startswith("ndots:") for value in kept):
                options.remove("ndots:0")
            options = kept + options
    return "\n".join([*lines, f"options {' '.join(options)}".rstrip()]) + "\n"


class Names:
    """The names of one daemon's network. `directory` is aardvark-dns's alone."""

    def __init__(self, directory: Path, network: str) -> None:
        self._directory = directory
        self._file = directory / network
        self._entries: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._gateway = ""
        self._pid = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()

    @property
    def entries(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Address and names by instance id."""
        return dict(self._entries)

    def adopt(self, gateway: str) -> None:
        """Take over what an earlier daemon left: the entries, and the process if it lives."""
        self._gateway = gateway
        with contextlib.suppress(OSError, ValueError):
            self._entries = parse_config(self._file.read_text())
        self._pid = self._find()

    async def add(self, instance_id: str, address: str, names: list[str]) -> None:
        """Names resolve to the address, within some milliseconds."""
        self._entries[instance_id] = (address, tuple(names))
        await self._changed()

    async def remove(self, instance_id: str) -> None:
        """The instance's names are gone, if there are any."""
        if self._entries.pop(instance_id, None):
            await self._changed()

    async def ensure(self) -> None:
        """The process runs if there are names to serve, and knows them all."""
        if self._entries:
            await self._changed()

    def alive(self) -> bool:
        """Whether the process runs, or need not."""
        return not self._entries or self._ours(self._pid)

    async def stop(self) -> None:
        """The process and its files are gone."""
        if self._timer:
            self._timer.cancel()
        self._entries.clear()
        pid = self._find()
        if pid:
            await asyncio.to_thread(_end, pid)
        self._pid = 0
        await asyncio.to_thread(shutil.rmtree, self._directory, True)

    async def _changed(self) -> None:
        """Write and tell the process: now, or shortly when that was done just before."""
        loop = asyncio.get_running_loop()
        if not self._ours(self._pid):
            await self._start()
        elif self._timer is None:
            delay = self._last + _PACE - loop.time()
            if delay <= 0:
                self._reload()
            else:
                self._timer = loop.call_later(delay, self._reload)

    def _reload(self) -> None:
        self._timer = None
        self._last = asyncio.get_running_loop().time()
        try:
            self._write()
            os.kill(self._pid, signal.SIGHUP)
        except OSError as error:
            log.warning("names could not be handed to %s: %s", _PROGRAM, error)

    def _write(self) -> None:
        """Replace the file as a whole. The new one is written outside the directory, all of
        whose files aardvark-dns reads."""
        self._directory.mkdir(parents=True, exist_ok=True)
        new = self._directory.with_name(f"{self._directory.name}.new")
        new.write_text(config_text(self._gateway, self._entries))
        new.replace(self._file)

    async def _start(self) -> None:
        async with self._starting:
            if self._ours(self._pid):
                self._reload()
                return
            self._write()
            argv = [_program(), "--config", str(self._directory), "--port", "53", "run"]
            process = await run.spawn(
                argv, survive=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
            )
            try:
                async with asyncio.timeout(DEADLINE):
                    await process.wait()
                    while not self._ours(self._pid):
                        self._pid = await asyncio.sleep(0.002, self._find())
            except TimeoutError as error:
                raise ProcessFailed(f"{_PROGRAM} did not start within {DEADLINE:g} s.") from error

    def _find(self) -> int:
        """The process's id by its pid file, if it is really ours; else 0."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._directory / "aardvark.pid").read_text())
            return pid if self._ours(pid) else 0
        return 0

    def _ours(self, pid: int) -> bool:
        if not pid:
            return False
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return str(self._directory).encode() in words and words[0].endswith(_PROGRAM.encode())
        return False


def _program() -> str:
    found = shutil.which(_PROGRAM, path=":".join((os.environ.get("PATH", ""), *_PLACES)))
    if not found:
        raise ToolMissing(f"{_PROGRAM} is not installed on this host.")
    return found


def _end(pid: int) -> None:
    """SIGKILL the process and wait until it is gone. Blocks, DEADLINE at most."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(DEADLINE * 1000)
        finally:
            os.close(descriptor)
