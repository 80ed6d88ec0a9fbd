"""Ports of the host's loopback, inside instances that were given them.

A socket that was made in a network namespace stays in it, whoever listens on it. So this daemon
listens on the loopback of the instance, and carries each connection to the host's loopback. No
address of the host is reachable for that, and no other instance can use it, unless it was put into
the same namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from sublet.domain.errors import StartFailed
from sublet.drivers import linux
from sublet.drivers.network.threads import finish

log = logging.getLogger(__name__)

AT_ONCE = 128
"""Connections of one instance at a time; further ones are closed at once."""

_BACKLOG, _PIECE = 64, 1 << 16
_REACH = 5.0
"""Seconds in which the host's service has to take a connection."""

_HERE = ("127.0.0.1", "::1")

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class HostPorts:
    """The listening sockets of one daemon, by instance, and the connections through them."""

    def __init__(self) -> None:
        self._servers: dict[str, list[asyncio.Server]] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    async def open(self, instance_id: str, netns: Path, ports: Sequence[int]) -> None:
        """Listen on the ports of the namespace's loopback, which is up. Raises StartFailed."""
        self.close(instance_id)
        if not ports:
            return
        try:
            sockets = await finish(_listen, netns, ports)
        except OSError as error:
            raise StartFailed(
                f"The host's ports cannot be shown to {instance_id}: {error}."
            ) from error
        servers = self._servers[instance_id] = []
        for sock in sockets:
            serve = self._serving(instance_id, sock.getsockname()[1])
            servers.append(await asyncio.start_server(serve, sock=sock, limit=_PIECE))

    def close(self, instance_id: str) -> None:
        """Nothing of the instance's reaches the host any more, connections included."""
        for server in self._servers.pop(instance_id, ()):
            server.close()
        for task in self._tasks.pop(instance_id, set()):
            task.cancel()

    def close_all(self) -> None:
        """As `close`, of every instance: the daemon ends."""
        for instance_id in list(self._servers):
            self.close(instance_id)

    def _serving(self, instance_id: str, port: int) -> _Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks = self._tasks.setdefault(instance_id, set())
            task = asyncio.current_task()
            if task is None or len(tasks) >= AT_ONCE or instance_id not in self._servers:
                writer.transport.abort()
                return
            tasks.add(task)
            try:
                await _carry(reader, writer, port)
            except (OSError, TimeoutError) as error:
                log.debug("port %d of the host for %s: %s", port, instance_id, error)
            except asyncio.CancelledError:
                pass  # that is how `close` ends it, and nobody awaits it
            finally:
                tasks.discard(task)
                writer.transport.abort()

        return serve


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both directions, each until its end; no faster than the slower side reads."""
    async with asyncio.timeout(_REACH):
        theirs, ours = await _reach(port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, ours))
            group.create_task(_pump(theirs, writer))
    except* OSError:
        pass  # one side has gone: so the other one does
    finally:
        ours.transport.abort()


async def _reach(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to who listens on the host's loopback, by IPv4 or else by IPv6."""
    first, second = _HERE
    try:
        return await asyncio.open_connection(first, port, limit=_PIECE)
    except OSError:
        return await asyncio.open_connection(second, port, limit=_PIECE)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def _listen(netns: Path, ports: Sequence[int]) -> list[socket.socket]:
    """Sockets that listen on the ports of the loopback in a network namespace; by IPv6 too where
    it has that. Blocks, and for its time puts the calling thread into the namespace."""
    made: list[socket.socket] = []
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with linux.entered(fd, linux.CLONE_NEWNET, "net"):
            for port in ports:
                made.append(_bound(socket.AF_INET, port))
                with contextlib.suppress(OSError):
                    made.append(_bound(socket.AF_INET6, port))
    except BaseException:
        for sock in made:
            sock.close()
        raise
    finally:
        os.close(fd)
    return made


def _bound(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((_HERE[family == socket.AF_INET6], port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
