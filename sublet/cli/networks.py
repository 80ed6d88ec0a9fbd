"""`sublet network …`."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any

import click

from sublet.cli.completing import instance_names, network_names
from sublet.cli.instances import JSON, each
from sublet.cli.output import confirmed, print_json, print_table
from sublet.domain.errors import NoSuchNetwork
from sublet.domain.units import format_age
from sublet.sdk import Client

NAME = click.argument("name", metavar="NETWORK", shell_complete=network_names)
NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=network_names
)
INSTANCE = click.argument("instance", metavar="INSTANCE", shell_complete=instance_names)


@click.group()
def network() -> None:
    """Commands on networks. Instances of one network reach each other, by name too."""


@network.command()
@click.argument("name", metavar="NAME")
@click.option("--subnet", default="", metavar="CIDR", help="Its addresses, such as 10.77.5.0/24.")
@click.option("--gateway", default="", metavar="ADDRESS", help="The host's address on it.")
@click.option("--internal", is_flag=True, help="Without a way out of it.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
def create(name: str, subnet: str, gateway: str, internal: bool, labels: tuple[str, ...]) -> None:
    """Make a network and print its id."""
    pairs = dict(text.partition("=")[::2] for text in labels)
    made = Client().create_network(
        name, subnet=subnet, gateway=gateway, internal=internal, labels=pairs
    )
    print(made["id"])


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="name=, id=, label=KEY[=VALUE], internal=true.",
)
@JSON
def list_networks(quiet: bool, filters: tuple[str, ...], as_json: bool) -> None:
    """List the networks of this host."""
    rows = Client().networks(filters)
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            print(row["id"])
    else:
        headers = ("ID", "NAME", "SUBNET", "GATEWAY", "INTERNAL", "CREATED")
        print_table(headers, [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    age = "-"
    if row["created"]:
        created = datetime.fromisoformat(row["created"]).timestamp()
        age = f"{format_age(time.time() - created)} ago"
    internal = "yes" if row["internal"] else "no"
    return [row["id"], row["name"], row["subnet"], row["gateway"], internal, age]


@network.command()
@NAMES
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of networks, and which instances are on them."""
    found = [Client().inspect_network(name) for name in names]
    print_json(found[0] if len(found) == 1 else found)


@network.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Delete networks that no instance is on."""
    client = Client()

    def work(name: str) -> None:
        try:
            client.remove_network(name)
        except NoSuchNetwork:
            if not force:
                raise
        print(name)

    return each(names, work)


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(force: bool) -> int:
    """Delete every network that no instance is on."""
    print("Every network that no instance is on will be deleted.", file=sys.stderr)
    if not confirmed(force):
        return 1
    for name in Client().prune_networks():
        print(name)
    return 0


@network.command()
@NAME
@INSTANCE
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="A further name there.")
@click.option("--ip", "address", default="", metavar="ADDRESS", help="The address that it gets.")
def connect(name: str, instance: str, aliases: tuple[str, ...], address: str) -> None:
    """Put an instance on a further network, running or not."""
    Client().connect(name, instance, aliases=aliases, address=address)


@network.command()
@NAME
@INSTANCE
@click.option("-f", "--force", is_flag=True, help="An instance that is not on it is fine.")
def disconnect(name: str, instance: str, force: bool) -> None:
    """Take an instance off a network, running or not."""
    Client().disconnect(name, instance, force=force)


COMMANDS = {"network": network}
