"""`sublet volume …`: storage that outlives instances."""

from __future__ import annotations

import sys
from typing import Any

import click

from sublet.cli.common import FORCE, JSON, JSON_ALWAYS, each_named, print_found
from sublet.cli.completing import volume_names
from sublet.cli.output import confirmed, print_json, print_rows
from sublet.domain.errors import NoSuchVolume
from sublet.domain.units import format_bytes, parse_memory
from sublet.sdk import Client

NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="VOLUME...", shell_complete=volume_names
)


@click.group()
def volume() -> None:
    """Storage that outlives instances: `sublet run -v NAME:/path` mounts a volume."""


@volume.command()
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.option("--size", metavar="SIZE", help="The most that it can hold, such as 2g.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
def create(name: str, size: str | None, labels: tuple[str, ...]) -> None:
    """Make a volume and print its name."""
    limit = parse_memory(size) if size else 0
    pairs = dict(text.partition("=")[::2] for text in labels)
    print(Client().create_volume(name, size=limit, labels=pairs)["name"])


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@JSON
def ls(quiet: bool, as_json: bool) -> None:
    """List volumes."""
    rows = Client().volumes()
    headers = ("NAME", "SIZE", "LIMIT", "INSTANCES")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet, key="name")


def _row(row: dict[str, Any]) -> list[str]:
    limit = format_bytes(row["limit"]) if row["limit"] else "-"
    return [row["name"], format_bytes(row["size"]), limit, ", ".join(row["instances"]) or "-"]


@volume.command()
@NAMES
@JSON_ALWAYS
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of a volume: a JSON object, an array for several."""
    print_found([Client().inspect_volume(name) for name in names])


@volume.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Delete volumes and all that is in them. One that an instance has stays."""
    return each_named(names, Client().remove_volume, fine=(NoSuchVolume,) if force else ())


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also volumes that have a name.")
@FORCE
@JSON
def prune(everything: bool, force: bool, as_json: bool) -> int:
    """Delete volumes that no instance has: those without a name, with -a all of them."""
    client = Client()
    planned = client.prune_volumes(all=everything, dry_run=True)
    count = len(planned["volumes"])
    what = f"{count} volume{'' if count == 1 else 's'}, {format_bytes(planned['size'])}"
    print(f"To be removed: {what}.", file=sys.stderr)
    if not confirmed(force):
        return 1
    done = client.prune_volumes(all=everything)
    if as_json:
        print_json(done)
        return 0
    for name in done["volumes"]:
        print(name)
    print(f"Total reclaimed space: {format_bytes(done['size'])}")
    return 0


COMMANDS = {"volume": volume}
