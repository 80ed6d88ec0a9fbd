"""Serving whoever calls. Everything is bounded: callers are tenants, and may be hostile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from http import HTTPStatus

import h11

from sublet.api.metadata.crowd import Crowd
from sublet.api.metadata.parse import parse
from sublet.api.metadata.render import Reply, events, refusal
from sublet.api.metadata.routes import respond
from sublet.drivers.network import Caller
from sublet.engine.metadata import Metadata
from sublet.engine.tasks import Tasks

log = logging.getLogger(__name__)

HEAD, BODY = 8 << 10, 1 << 10
"""The most bytes of a request's line and headers, and of a body, which nobody reads."""

ASKING, TAKING, LEAVING = 10.0, 20.0, 1.0
"""Seconds in which a request has to arrive, from the one before on, in which a reply has to leave,
and for which a caller is heard out that has been refused."""

_REFUSED = struct.pack("=ii", 1, 0)
"""SO_LINGER (socket(7)): the connection is reset, and not kept in the kernel for a minute."""


class Server:
    """The metadata service of one daemon."""

    def __init__(self, metadata: Metadata, tasks: Tasks) -> None:
        self._metadata = metadata
        self._tasks = tasks
        self._crowd = Crowd()

    def take(self, caller: Caller, sock: socket.socket) -> None:
        """Serve the connection, and close it; refuse it where its caller is nobody, or has
        enough."""
        if not self._crowd.admits(caller) or self._metadata.who(caller) is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _REFUSED)
            sock.close()
            return
        task = self._tasks.start(f"metadata for {caller.address}", self._serve(caller, sock))
        task.add_done_callback(lambda _: sock.close())  # it may end before it has begun
        self._crowd.enter(caller, task)

    async def _serve(self, caller: Caller, sock: socket.socket) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
            while await self._exchange(caller, sock, connection):
                connection.start_next_cycle()

    async def _exchange(
        self, caller: Caller, sock: socket.socket, connection: h11.Connection
    ) -> bool:
        """Answer one request; False when there is none, or when it was the last."""
        try:
            async with asyncio.timeout(ASKING):
                event = await _asked(connection, sock)
        except h11.RemoteProtocolError:
            await _send(connection, sock, refusal(HTTPStatus.BAD_REQUEST), last=True)
            await _hear_out(sock)
            return False
        if event is None:
            return False
        await asyncio.sleep(self._crowd.delay(caller, time.monotonic()))
        instance = self._metadata.who(caller)
        if instance is None:
            return False
        reply = respond(self._metadata, instance, parse(event), time.time())
        await _send(connection, sock, reply, head=event.method == b"HEAD")
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _asked(connection: h11.Connection, sock: socket.socket) -> h11.Request | None:
    """The next request, its body read and dropped; None when the caller has gone. Raises
    RemoteProtocolError for what is none."""
    loop = asyncio.get_running_loop()
    request, body = None, 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await loop.sock_recv(sock, HEAD))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += len(event.data)
            if body > BODY:
                raise h11.RemoteProtocolError("The body is too long.")
        else:
            return request if isinstance(event, h11.EndOfMessage) else None


async def _hear_out(sock: socket.socket) -> None:
    """Read on for a while: a connection that is closed with something unread is reset, and the
    refusal might not arrive."""
    sock.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(LEAVING):
        for _ in range(16):
            if not await asyncio.get_running_loop().sock_recv(sock, HEAD):
                return


async def _send(
    connection: h11.Connection,
    sock: socket.socket,
    reply: Reply,
    *,
    head: bool = False,
    last: bool = False,
) -> None:
    if reply.near:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    data = b"".join(connection.send(event) or b"" for event in events(reply, head=head, last=last))
    async with asyncio.timeout(TAKING):
        await asyncio.get_running_loop().sock_sendall(sock, data)
