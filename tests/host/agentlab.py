"""Agents: clients of the MCP server, as they start it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from conftest import SUBLET, Sublet
from mcp import Client, StdioServerParameters


@asynccontextmanager
async def agent(sublet: Sublet, *options: str) -> AsyncIterator[Client]:
    """A client that started the server as agents do."""
    env = {name: sublet.env[name] for name in ("SUBLET_ROOT", "SUBLET_RUN", "PATH")}
    server = StdioServerParameters(command=SUBLET, args=["mcp", *options], env=env)
    async with Client(server, read_timeout_seconds=120) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool answers; it must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content.get("result", result.structured_content)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """What the model is told of what a tool would not do."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]
