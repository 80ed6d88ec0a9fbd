"""Forwarders: published ports as seen from the host itself.

What comes from other hosts is translated by nftables; the host's own connections, to
127.0.0.1 above all, cannot be without `route_localnet`, which would expose the host's
loopback services. They are accepted by a `socat` each port, which survives the daemon. A
forwarder is known by its environment: the bridge's name and the instance's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
import time
from asyncio.subprocess import DEVNULL
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from sublet.domain.errors import InvalidArgument, PortInUse, ProcessFailed
from sublet.domain.ports import Port
from sublet.drivers import run

DEADLINE = 5.0
_NETWORK, _INSTANCE = "SUBLET_NETWORK", "SUBLET_INSTANCE"
_UDP_IDLE = 60
"""Seconds without a datagram after which a UDP exchange is forgotten."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A port of the host that is ours: the socket holds it until the forwarder does."""

    port: Port
    socket: socket.socket


def bind(port: Port) -> Bound:
    """Take the port. Raises PortInUse; InvalidArgument for an address that is not the host's."""
    tcp = port.protocol == "tcp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        if tcp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_ip, port.host_port))
        if tcp:
            sock.listen(1024)
    except OSError as error:
        sock.close()
        raise _refused(port, error) from error
    return Bound(replace(port, host_port=sock.getsockname()[1]), sock)


def command(bound: Port, descriptor: int, address: str) -> list[str]:
    """The forwarder's argument list: tcp accepts on the descriptor, udp binds by itself."""
    if bound.protocol == "tcp":
        return [
            "socat",
            f"ACCEPT-FD:{descriptor},fork,max-children=1024",
            f"TCP4:{address}:{bound.container_port},nodelay",
        ]
    listen = f"UDP4-LISTEN:{bound.host_port},bind={bound.host_ip},reuseaddr,fork,max-children=1024"
    return ["socat", "-T", str(_UDP_IDLE), listen, f"UDP4:{address}:{bound.container_port}"]


class Forwarders:
    """The forwarders of one daemon's network."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._groups: dict[str, set[int]] = {}

    async def adopt(self) -> None:
        """Know the forwarders that an earlier daemon left."""
        self._groups = await asyncio.to_thread(self.running)

    def owners(self) -> list[str]:
        """The instances that have forwarders."""
        return list(self._groups)

    async def start(self, instance_id: str, address: str, bound: Bound) -> None:
        """Forward the bound port to the address; the socket is the forwarder's from now on."""
        tcp = bound.port.protocol == "tcp"
        descriptor = bound.socket.fileno()
        if not tcp:
            bound.socket.close()
        with bound.socket:
            process = await run.spawn(
                command(bound.port, descriptor, address),
                survive=True,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                pass_fds=(descriptor,) if tcp else (),
                env=self._marks(instance_id),
            )
        self._groups.setdefault(instance_id, set()).add(process.pid)
        if not tcp:
            await _until_taken(bound.port)

    async def stop(self, instance_id: str) -> None:
        """End the instance's forwarders, and the connections through them."""
        groups = self._groups.pop(instance_id, set())
        if groups:
            await asyncio.to_thread(self._stop, instance_id, groups)

    def alive(self, instance_id: str, count: int) -> bool:
        """Whether the instance has `count` forwarders, and all of them run."""
        groups = self._groups.get(instance_id, set())
        return len(groups) == count and all(
            self._owner(f"/proc/{group}") == instance_id for group in groups
        )

    def _stop(self, instance_id: str, groups: set[int]) -> None:
        """A group whose leader is gone may have been another's since: then look at all."""
        if any(self._owner(f"/proc/{group}") != instance_id for group in groups):
            groups = self.running().get(instance_id, set())
        _kill(groups)

    def running(self) -> dict[str, set[int]]:
        """The process groups of this network's forwarders, by instance."""
        found: dict[str, set[int]] = defaultdict(set)
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                owner = self._owner(entry.path)
                if owner:
                    with contextlib.suppress(OSError):
                        found[owner].add(os.getpgid(int(entry.name)))
        return dict(found)

    def _marks(self, instance_id: str) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, _NETWORK: self._network, _INSTANCE: instance_id}

    def _owner(self, process: str) -> str:
        """The instance whose forwarder the process is; nothing inside an instance counts."""
        with contextlib.suppress(OSError):
            directory = Path(process)
            if (directory / "comm").read_text() != "socat\n" or directory.stat().st_uid >= 65536:
                return ""
            variables = dict(
                line.partition("=")[::2]
                for line in (directory / "environ").read_text(errors="replace").split("\0")
            )
            if variables.get(_NETWORK) == self._network:
                return variables.get(_INSTANCE, "")
        return ""


def _kill(groups: set[int]) -> None:
    """SIGKILL the process groups and wait until they are gone. Blocks, DEADLINE at most."""
    descriptors = []
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(group))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    end = time.monotonic() + DEADLINE
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0, end - time.monotonic()) * 1000)
        os.close(descriptor)


async def _until_taken(port: Port) -> None:
    """Wait until the forwarder has bound the UDP port."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            bind(port).socket.close()
        except PortInUse:
            return
        await asyncio.sleep(0.005)
    raise ProcessFailed(f"The forwarder of {port} did not start within {DEADLINE:g} s.")


def _refused(port: Port, error: OSError) -> PortInUse | InvalidArgument | OSError:
    place = f"{port.host_ip}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"Port {place} is in use on this host.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidArgument(f"{port.host_ip} is not an address of this host.")
    return error
