"""The MCP server: sandboxes for agents, on the SDK alone."""

from sublet.mcp.serving import serve_http, serve_stdio

__all__ = ["serve_http", "serve_stdio"]
