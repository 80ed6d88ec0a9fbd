"""`sublet network …`."""

from __future__ import annotations

import sys
from typing import Any

import click

from sublet.cli.common import FORCE, JSON, JSON_ALWAYS, ago, each_named, filters, print_found
from sublet.cli.completing import instance_names, network_names
from sublet.cli.output import confirmed, print_rows
from sublet.domain.errors import NoSuchNetwork
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
@filters("name=, id=, label=KEY[=VALUE], internal=true.", "-f")
@JSON
def list_networks(quiet: bool, filters: tuple[str, ...], as_json: bool) -> None:
    """List the networks of this host."""
    rows = Client().networks(filters)
    headers = ("ID", "NAME", "SUBNET", "GATEWAY", "INTERNAL", "CREATED")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet)


def _row(row: dict[str, Any]) -> list[str]:
    internal = "yes" if row["internal"] else "no"
    cells = [row[key] for key in ("id", "name", "subnet", "gateway")]
    return [*cells, internal, ago(row["created"])]


@network.command()
@NAMES
@JSON_ALWAYS
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of networks, and which instances are on them."""
    print_found([Client().inspect_network(name) for name in names])


@network.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Delete networks that no instance is on."""
    return each_named(names, Client().remove_network, fine=(NoSuchNetwork,) if force else ())


@network.command()
@FORCE
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
