"""Sublet rents out slices of a machine. `sublet.run(...)` gives one to a Python program."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    from sublet.domain.errors import SubletError, TimeoutExceeded
    from sublet.sdk import (
        AsyncClient,
        AsyncInstance,
        AsyncSandbox,
        Client,
        ExecResult,
        Instance,
        Sandbox,
        run,
    )

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "AsyncInstance",
    "AsyncSandbox",
    "Client",
    "ExecResult",
    "Instance",
    "Sandbox",
    "SubletError",
    "TimeoutExceeded",
    "run",
]


def __getattr__(name: str) -> Any:
    """Load the SDK when it is first used (PEP 562): importing a room costs only that room."""
    if name in ("SubletError", "TimeoutExceeded"):
        from sublet.domain import errors

        return getattr(errors, name)
    if name in __all__:
        from sublet import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module 'sublet' has no attribute '{name}'")
