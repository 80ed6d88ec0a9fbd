"""The client that Python programs import: blocking (`Client`) and asynchronous (`AsyncClient`)."""

from __future__ import annotations

from sublet.sdk._sync.client import Client, Instance, run

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    from sublet.sdk._async.client import AsyncClient, AsyncInstance
    from sublet.sdk._sync.comparing import compare
    from sublet.sdk.outcome import ExecResult

__all__ = ["AsyncClient", "AsyncInstance", "Client", "ExecResult", "Instance", "compare", "run"]


def __getattr__(name: str) -> Any:
    """asyncio costs 25 ms to import, dataclasses 10: only who asks for them pays."""
    if name == "ExecResult":
        from sublet.sdk.outcome import ExecResult

        return ExecResult
    if name in ("AsyncClient", "AsyncInstance"):
        from sublet.sdk._async import client

        return getattr(client, name)
    if name == "compare":
        from sublet.sdk._sync.comparing import compare

        return compare
    raise AttributeError(f"module 'sublet.sdk' has no attribute '{name}'")
