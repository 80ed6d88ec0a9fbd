"""`sublet browse --cdp`: a browser that Playwright drives from this host."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from sublet.browser import Endpoint, serve
from sublet.cli import browse
from sublet.cli.output import Progress, one_line, print_json
from sublet.domain.browsing import Page, window_of
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_duration
from sublet.sdk import AsyncClient

_TTL = "1h"

_DRIVERS_OWN = "screenshot pdf full_page dark wait wait_for compare".split()
"""Flags of what whoever connects does by itself."""


def answer(page: Page | None, options: browse.Options, *, as_json: bool) -> None:
    """Start it and print where it answers; then stay until Ctrl-C, or leave it with --detach."""
    for name in _DRIVERS_OWN:
        if options.get(name):
            raise InvalidArgument(
                f"--{name.replace('_', '-')} does not go with --cdp.",
                hint="The program that connects decides that.",
            )
    if options["ttl"] and not options["detach"]:
        raise InvalidArgument("--ttl is for --detach: else it ends with this.", hint="Add -d.")
    work = _leave if options["detach"] else _stay
    try:
        browse.run(work(page, options, as_json))
    except KeyboardInterrupt:
        if options["detach"]:
            raise
        print("Deleted.", file=sys.stderr)


async def _leave(page: Page | None, options: browse.Options, as_json: bool) -> None:
    ttl = parse_duration(options["ttl"] or _TTL)
    found = await _serve(AsyncClient(), page, options, ttl=ttl)
    _print(found, as_json, f"It is deleted after {options['ttl'] or _TTL}, or: sublet rm -f")


async def _stay(page: Page | None, options: browse.Options, as_json: bool) -> None:
    client = AsyncClient()
    async with client.lease() as lease:
        found = await _serve(client, page, options, lease=lease.id)
        _print(found, as_json, "Ctrl-C deletes")
        await client.wait(found.id)


async def _serve(
    client: AsyncClient, page: Page | None, options: browse.Options, **more: Any
) -> Endpoint:
    ports = browse.ports_of(options)
    with Progress() as progress:
        return await serve(
            client,
            options["browser"],
            flags(options),
            url=page.url if page else "about:blank",
            ports=[*ports, *([page.port] if page and page.port else [])],
            memory=options["memory"],
            progress=progress,
            **more,
        )


def flags(options: browse.Options) -> list[str]:
    """What the options are called by Chromium itself."""
    width, height = window_of(options["size"])
    found = [f"--window-size={width},{height}"]
    if options["scale"] != 1:
        found.append(f"--force-device-scale-factor={options['scale']:g}")
    if options["user_agent"]:
        found.append(f"--user-agent={options['user_agent']}")
    if options["insecure"]:
        found.append("--ignore-certificate-errors")
    return found


def _print(found: Endpoint, as_json: bool, end: str) -> None:
    if as_json:
        print_json(asdict(found))
    else:
        print(found.url)
    sys.stdout.flush()
    print(
        f"{one_line(found.browser)}, for connect_over_cdp(). {end} {found.name}.", file=sys.stderr
    )
