"""The client that Python programs import: blocking (`Client`) and asynchronous (`AsyncClient`)."""

from __future__ import annotations

from sublet.sdk._sync.client import Client, Instance, run

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    from sublet.sdk._async.client import AsyncClient, AsyncInstance
    from sublet.sdk._async.sandbox import AsyncSandbox
    from sublet.sdk._sync.comparing import compare
    from sublet.sdk._sync.sandbox import Sandbox
    from sublet.sdk.outcome import ExecResult

__all__ = [
    "AsyncClient",
    "AsyncInstance",
    "AsyncSandbox",
    "Client",
    "ExecResult",
    "Instance",
    "Sandbox",
    "compare",
    "run",
]


def __getattr__(name: str) -> Any:
    """asyncio costs 25 ms to import, dataclasses 10: only who asks for them pays."""
    if name == "ExecResult":
        from sublet.sdk.outcome import ExecResult

        return ExecResult
    if name in ("AsyncClient", "AsyncInstance"):
        from sublet.sdk._async import client

        return getattr(client, name)
    if name == "AsyncSandbox":
        from sublet.sdk._async.sandbox import AsyncSandbox

        return AsyncSandbox
    if name == "Sandbox":
        from sublet.sdk._sync.sandbox import Sandbox

        return Sandbox
    if name == "compare":
        from sublet.sdk._sync.comparing import compare

        return compare
    raise AttributeError(f"module 'sublet.sdk' has no attribute '{name}'")
