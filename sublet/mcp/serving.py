"""The server on its two transports: standard input and output, and streamable HTTP."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from sublet import __version__
from sublet.domain.agents import Policy
from sublet.mcp.sandboxes import Sandboxes
from sublet.mcp.tools import Tools
from sublet.sdk import AsyncClient

INSTRUCTIONS = (
    "Sandboxes: clean Linux machines in which anything may be tried, that are deleted afterwards. "
    "Make one with create_sandbox, then work in it with exec, run_python and the files tools. Take "
    "a snapshot before something risky and roll back, or fork to try several ways. Destroy what "
    "is not needed any more; what is forgotten is deleted when its time to live is over."
)

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


def build(boxes: Sandboxes, policy: Policy) -> MCPServer:
    """The server with its tools."""
    server = MCPServer(
        "sublet", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    Tools(boxes, policy).add_to(server)
    return server


async def serve_stdio(policy: Policy, name: str, *, keep: bool) -> None:
    """Serve the client that started this process, until it closes standard input. Its sandboxes
    go then, or with `keep` when their time to live is over, and belong to the server `name`."""
    client = AsyncClient()
    if keep:
        await build(Sandboxes(policy, name, client), policy).run_stdio_async()
        return
    async with client.lease() as lease:
        boxes = Sandboxes(policy, f"{name}-{secrets.token_hex(4)}", client, lease.id)
        await build(boxes, policy).run_stdio_async()


async def serve_http(
    policy: Policy,
    name: str,
    listener: socket.socket,
    token: str,
    origins: Sequence[str] = (),
) -> None:
    """Serve whoever has the token at http://ADDRESS:PORT/mcp of the listener, until SIGINT or
    SIGTERM: pages of this host, and of `origins`, among them. Sandboxes go when their time to live
    is over, and belong to the server `name`."""
    server = build(Sandboxes(policy, name, AsyncClient()), policy)
    # A proxy has a name of its own; `guarded` looks at origins.
    open_to_names = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    inner = server.streamable_http_app(transport_security=open_to_names)
    config = uvicorn.Config(
        guarded(inner, token, origins),
        http="h11",
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def guarded(inner: Application, token: str, origins: Sequence[str] = ()) -> Application:
    """The application for requests with `Authorization: Bearer TOKEN` alone (RFC 6750,
    section 2.1); others get 401. What a page of a stranger's site has a browser send gets 403, as
    the transport's specification asks: a name of that site may lead here (DNS rebinding)."""
    wanted = f"Bearer {token}".encode()

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        given = headers.get(b"authorization", b"")
        if scope["type"] == "lifespan":
            await inner(scope, receive, send)
        elif not _is_known(headers.get(b"origin", b"").decode("latin-1"), origins):
            await _refuse(send, 403, b"The origin is not permitted: sublet mcp --origin.\n")
        elif not secrets.compare_digest(given, wanted):
            await _refuse(send, 401, b"The token is missing or wrong.\n")
        else:
            await inner(scope, receive, send)

    return application


def _is_known(origin: str, origins: Sequence[str]) -> bool:
    """Whether a request may come from there (RFC 6454, section 7): from no page at all, from one
    of this host, or as the owner says."""
    if not origin or origin in origins:
        return True
    with suppress(ValueError):
        return urlsplit(origin).hostname in ("localhost", "127.0.0.1", "::1")
    return False


async def _refuse(send: Any, status: int, why: bytes) -> None:
    headers = [(b"content-type", b"text/plain")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why})
