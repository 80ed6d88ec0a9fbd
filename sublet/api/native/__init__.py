"""The native API: REST and WebSocket under `/v1`."""

from sublet.api.native.app import build

__all__ = ["build"]
