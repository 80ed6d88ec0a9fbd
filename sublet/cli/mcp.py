"""`sublet mcp`: sandboxes for agents, over the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from sublet.cli.completing import image_or_catalog_names
from sublet.domain.agents import DEFAULT, Policy, check_policy, network_of
from sublet.domain.errors import InvalidArgument
from sublet.domain.spec import Isolation
from sublet.domain.units import parse_duration

TOKEN = "SUBLET_MCP_TOKEN"
"""The variable that may hold the token of `--http`."""


@click.command()
@click.option("--http", metavar="ADDRESS:PORT", help="Serve streamable HTTP there, not stdio.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"With --http: what clients have to know; or ${TOKEN}; else one is made up.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="With --http: pages of that site may send requests, too, not of this host alone.",
)
@click.option(
    "--image", default=DEFAULT.image, show_default=True, shell_complete=image_or_catalog_names,
    metavar="IMAGE", help="A sandbox's image where the agent asks for none.",
)  # fmt: skip
@click.option(
    "--only-image",
    "images",
    multiple=True,
    metavar="NAME",
    help="Besides --image an agent may ask for that alone, such as `node:*`; again for more.",
)
@click.option(
    "--registry",
    "registries",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Images may come from there, too, besides Docker Hub.",
)
@click.option(
    "--isolation",
    type=click.Choice([each.value for each in Isolation]),
    default="container",
    show_default=True,
    help="A sandbox's where the agent asks for none; with vm, containers are refused.",
)
@click.option(
    "--size", default=DEFAULT.size, show_default=True, metavar="CPUSxGIB",
    help="A sandbox's size where the agent asks for none.",
)  # fmt: skip
@click.option(
    "--max-size", default=DEFAULT.max_size, show_default=True, metavar="CPUSxGIB",
    help="The largest that an agent may ask for.",
)  # fmt: skip
@click.option("--disk", default="", metavar="BYTES", help="The most that each may write.")
@click.option(
    "--ttl", default="1h", show_default=True, metavar="TIME",
    help="A sandbox is deleted then where the agent asks for no time.",
)  # fmt: skip
@click.option(
    "--max-ttl", default="1d", show_default=True, metavar="TIME",
    help="The longest that a sandbox may live in all.",
)  # fmt: skip
@click.option(
    "--network",
    multiple=True,
    metavar="none|internet|NAME,…",
    help="What sandboxes may reach: at most, and by default.  [default: internet]",
)
@click.option(
    "--most", default=DEFAULT.most, show_default=True, help="So many sandboxes at a time."
)
@click.option(
    "--name",
    default="default",
    show_default=True,
    help="Whose sandboxes they are: the next server of this name finds those that stay.",
)
@click.option("--keep", is_flag=True, help="Leave them to their --ttl when the client goes.")
@click.option("--config", is_flag=True, help="Print what to put into an agent's configuration.")
def mcp(
    http: str | None,
    token_file: Path | None,
    origins: tuple[str, ...],
    network: tuple[str, ...],
    ttl: str,
    max_ttl: str,
    isolation: str,
    name: str,
    keep: bool,
    config: bool,
    **given: Any,
) -> None:
    """Give agents sandboxes of their own, over the Model Context Protocol.

    An agent starts this program and talks to it; or it is served over HTTP. It can make machines,
    run commands in them, read and write their files, snapshot, fork and roll them back, reach
    their ports and delete them. No other instance of this host is within its reach.
    """
    policy = Policy(
        isolation=Isolation(isolation),
        ttl=parse_duration(ttl),
        max_ttl=parse_duration(max_ttl),
        network=network_of(network) or DEFAULT.network,
        **given,
    )
    check_policy(policy)
    if config:
        arguments = [each for each in sys.argv[1:] if each != "--config"]
        print(json.dumps(_configuration(arguments), indent=2))
    elif http is None:
        _stdio(policy, name, keep, token_file)
    else:
        _http(policy, name, http, token_file, origins)


def _stdio(policy: Policy, name: str, keep: bool, token_file: Path | None) -> None:
    if token_file is not None:
        raise InvalidArgument("--token-file is for --http.", hint="Add --http 127.0.0.1:8765.")
    from sublet.mcp import serve_stdio

    # What reads the terminal cannot be interrupted otherwise; the lease takes the sandboxes along.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stdin.isatty():
        print(
            "sublet: an agent starts this and talks to it here: `sublet mcp --config` prints what"
            " to tell the agent. Ctrl-C ends it.",
            file=sys.stderr,
            flush=True,
        )
    asyncio.run(serve_stdio(policy, name, keep=keep))


def _http(
    policy: Policy, name: str, address: str, token_file: Path | None, origins: tuple[str, ...]
) -> None:
    from sublet.mcp import serve_http

    with _listener(address) as listener:
        token = _token(token_file)
        host, port = listener.getsockname()[:2]
        print(f"sublet: serving http://{host}:{port}/mcp", file=sys.stderr, flush=True)
        asyncio.run(serve_http(policy, name, listener, token, origins))


def _configuration(arguments: list[str]) -> dict[str, Any]:
    """What Claude, Cursor and most others read: servers by name."""
    own = {name: os.environ[name] for name in ("SUBLET_ROOT", "SUBLET_RUN") if name in os.environ}
    entry: dict[str, Any] = {"command": "sublet", "args": arguments}
    return {"mcpServers": {"sublet": {**entry, "env": own} if own else entry}}


def _token(file: Path | None) -> str:
    """What clients have to send; one that is made up is told."""
    given = file.read_text().strip() if file else os.environ.get(TOKEN, "")
    if file and not given:
        raise InvalidArgument(f"{file} is empty.", hint="Put a long random word into it.")
    if not given:
        given = secrets.token_urlsafe(32)
        print(f"sublet: clients send `Authorization: Bearer {given}`", file=sys.stderr)
    return given


def _listener(text: str) -> socket.socket:
    """A socket that listens at ADDRESS:PORT, or :PORT of this host's loopback alone."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"'{text}' is no address.", hint="Write --http 127.0.0.1:8765.")
    try:
        return socket.create_server((host or "127.0.0.1", int(port)))
    except OSError as error:
        raise InvalidArgument(
            f"{text} cannot be listened at: {error.strerror}.", hint="Choose another port."
        ) from error


COMMANDS = {"mcp": mcp}
