"""Commands on registries."""

from __future__ import annotations

import click

from sublet.cli.output import Progress
from sublet.sdk import Client


@click.command()
@click.argument("reference", metavar="REF")
def pull(reference: str) -> None:
    """Fetch an image from its registry, or make it from a Debian mirror."""
    with Progress() as progress:
        made = Client().pull(reference, progress)
    print(made["digest"])


COMMANDS = {
    "pull": pull,
}
