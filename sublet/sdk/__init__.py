"""The client that Python programs import: blocking (`Client`) and asynchronous (`AsyncClient`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sublet.sdk._sync.client import Client, Instance, run
from sublet.sdk.results import ExecResult

if TYPE_CHECKING:
    from sublet.sdk._async.client import AsyncClient, AsyncInstance

__all__ = ["AsyncClient", "AsyncInstance", "Client", "ExecResult", "Instance", "run"]


def __getattr__(name: str) -> Any:
    """asyncio costs 25 ms to import: only who asks for it pays."""
    if name in ("AsyncClient", "AsyncInstance"):
        from sublet.sdk._async import client

        return getattr(client, name)
    raise AttributeError(f"module 'sublet.sdk' has no attribute '{name}'")
