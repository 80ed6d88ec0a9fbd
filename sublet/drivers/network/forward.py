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
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from sublet.domain.errors import InvalidArgument, PortInUse, ProcessFailed
from sublet.domain.ports import Port
from sublet.drivers import run
from sublet.drivers.network.threads import finish

DEADLINE = 5.0
_NETWORK, _INSTANCE = "SUBLET_NETWORK", "SUBLET_INSTANCE"
_UDP_IDLE = 60
"""Seconds without a datagram after which a UDP exchange is forgotten."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A port of the host, found free, and the socket that holds it until the forwarder does."""

    port: Port
    socket: socket.socket


def bind(port: Port) -> Bound:
    """Find the port free. Raises PortInUse; InvalidArgument for an address not the host's.

    A TCP socket that is bound, reusable and not listening keeps others away, and lets the
    forwarder, whose socket is reusable too, listen.
    """
    tcp = port.protocol == "tcp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        if tcp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.host_ip, port.host_port))
    except OSError as error:
        sock.close()
        raise _refused(port, error) from error
    return Bound(replace(port, host_port=sock.getsockname()[1]), sock)


def command(port: Port, address: str) -> list[str]:
    """The forwarder's argument list."""
    kind = port.protocol.upper()
    listen = f"{kind}4-LISTEN:{port.host_port},bind={port.host_ip},reuseaddr,fork"
    limits = ",max-children=1024" + (",backlog=1024" if kind == "TCP" else "")
    idle = [] if kind == "TCP" else ["-T", str(_UDP_IDLE)]
    return ["socat", *idle, listen + limits, f"{kind}4:{address}:{port.container_port}"]


class Forwarders:
    """The forwarders of one daemon's network."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._groups: dict[str, set[int]] = {}

    async def adopt(self) -> None:
        """Know the forwarders that an earlier daemon left."""
        self._groups = await finish(self.running)

    def owners(self) -> list[str]:
        """The instances that have forwarders."""
        return list(self._groups)

    async def start(self, instance_id: str, address: str, bound: Bound) -> None:
        """Forward the port to the address; returns when the forwarder listens.

        Raises PortInUse when another program was quicker.
        """
        if bound.port.protocol == "udp":
            bound.socket.close()
        pid = run.launch(command(bound.port, address), env=self._marks(instance_id))
        self._groups.setdefault(instance_id, set()).add(pid)
        await _until_listening(pid, bound.port)

    async def stop(self, instance_id: str) -> None:
        """End the instance's forwarders, and the connections through them."""
        groups = self._groups.pop(instance_id, set())
        if groups:
            await finish(self._stop, instance_id, groups)

    def broken(self) -> list[str]:
        """The instances of whose forwarders some have ended by themselves."""
        known = list(self._groups.items())
        return [name for name, groups in known if not self.alive(name, len(groups))]

    def alive(self, instance_id: str, count: int) -> bool:
        """Whether the instance has `count` forwarders, and all of them run."""
        groups = self._groups.get(instance_id, set())
        return len(groups) == count and all(
            self._owner(f"/proc/{group}") == instance_id for group in groups
        )

    def _stop(self, instance_id: str, groups: set[int]) -> None:
        """A group whose leader is gone may have been another's since: then look at all. Not of a
        child that nobody has waited for: it may not even have its name yet."""
        own = {group for group in groups if run.is_child(group)}
        if any(self._owner(f"/proc/{group}") != instance_id for group in groups - own):
            groups = own | self.running().get(instance_id, set())
        _kill(groups)

    def running(self) -> dict[str, set[int]]:
        """The process groups of this network's forwarders, by instance."""
        found: dict[str, set[int]] = defaultdict(set)
        for name in filter(str.isdigit, os.listdir("/proc")):
            owner = self._owner(f"/proc/{name}")
            if owner:
                with contextlib.suppress(OSError):
                    found[owner].add(os.getpgid(int(name)))
        return dict(found)

    def _marks(self, instance_id: str) -> dict[str, str]:
        return {_NETWORK: self._network, _INSTANCE: instance_id}

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
    for group in groups:
        run.reap(group)


async def _until_listening(pid: int, port: Port) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if _has(pid, _sockets(port)):
            return
        if run.reap(pid):
            raise _refused(port, OSError(errno.EADDRINUSE, "socat ended"))
        await asyncio.sleep(0.001)
    raise ProcessFailed(f"The forwarder of {port} did not start within {DEADLINE:g} s.")


def _sockets(port: Port) -> set[str]:
    """The sockets that listen on the host's port, as /proc/PID/fd shows them (proc(5))."""
    state = "0A" if port.protocol == "tcp" else "07"
    end = f":{port.host_port:04X}"
    rows = (row.split() for row in Path("/proc/net", port.protocol).read_text().splitlines())
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(end) and row[3] == state}


def _has(pid: int, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        directory = f"/proc/{pid}/fd"
        return any(os.readlink(f"{directory}/{fd}") in sockets for fd in os.listdir(directory))
    return False


def _refused(port: Port, error: OSError) -> PortInUse | InvalidArgument | OSError:
    place = f"{port.host_ip}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"Port {place} is in use on this host.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidArgument(f"{port.host_ip} is not an address of this host.")
    return error
