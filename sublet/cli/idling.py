"""Commands on what counts as use of an instance."""

from __future__ import annotations

import click

from sublet.cli.common import each_named
from sublet.cli.instances import NAMES
from sublet.domain.units import parse_duration
from sublet.sdk import Client


@click.command()
@NAMES
@click.option("--for", "period", metavar="TIME", help="Also for so long from now on, such as 2h.")
def keepalive(names: tuple[str, ...], period: str | None) -> int:
    """Let instances that have a rule for idleness (--idle) count as used now: their windows begin
    again. With --for, they count as used until then, whatever they do; a later call replaces that.
    """
    client = Client()
    seconds = parse_duration(period) if period else 0.0
    return each_named(names, lambda name: client.keepalive(name, seconds))


COMMANDS = {"keepalive": keepalive}
