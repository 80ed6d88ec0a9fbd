"""Commands on the room that things take on the disk: `system df`, `prune`."""

from __future__ import annotations

import sys
from typing import Any

import click

from sublet.cli.common import FORCE, JSON, PRUNE_FILTERS, filters
from sublet.cli.output import confirmed, print_json, print_table
from sublet.domain.units import format_bytes
from sublet.sdk import Client

FILTERS = filters(PRUNE_FILTERS)


@click.command()
@FILTERS
@FORCE
@JSON
def prune(filters: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Delete all instances that are stopped, but for those that are about to restart."""
    client = Client()
    _plan(client.prune(filters=filters, dry_run=True))
    if not confirmed(force):
        return 1
    return _done(client.prune(filters=filters), as_json)


@click.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Also images that have a name.")
@click.option("--volumes", is_flag=True, help="Also volumes that have no name.")
@FILTERS
@FORCE
@JSON
def prune_system(
    everything: bool, volumes: bool, filters: tuple[str, ...], force: bool, as_json: bool
) -> int:
    """Delete stopped instances, networks without instances, and images without a name.

    With -a, all images that no instance is made of, and the templates of VMs. With --filter,
    networks stay.
    """
    client = Client()
    given: dict[str, Any] = {"all": everything, "volumes": volumes, "filters": filters}
    _plan(client.prune_system(**given, dry_run=True))
    if not confirmed(force):
        return 1
    return _done(client.prune_system(**given), as_json)


def _plan(freed: list[dict[str, Any]]) -> None:
    """Say what would go, on standard error."""
    print("To be removed:", file=sys.stderr)
    for row in freed:
        kind = row["kind"].removesuffix("s") if len(row["ids"]) == 1 else row["kind"]
        what = f"{len(row['ids']) or 'no'} {kind}"
        if row["kind"] == "build cache":
            what = row["kind"]
        print(f"  {what}, {format_bytes(row['size'])}", file=sys.stderr)
        for name in row["ids"]:
            print(f"    {name}", file=sys.stderr)


def _done(freed: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        print_json(freed)
        return 0
    for row in freed:
        if row["ids"]:
            print(f"Deleted {row['kind']}:")
        for name in row["ids"]:
            print(name)
    print(f"Total reclaimed space: {format_bytes(sum(row['size'] for row in freed))}")
    return 0


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Each instance, image and volume too.")
@JSON
def df(verbose: bool, as_json: bool) -> None:
    """Show what takes room on the disk, and how much of it `prune` could free."""
    client = Client()
    rows = client.usage()
    if as_json:
        print_json({"usage": rows, **_each(client)} if verbose else rows)
        return
    table = [
        [
            row["kind"],
            str(row["count"]),
            str(row["active"]),
            format_bytes(row["size"]),
            f"{format_bytes(row['reclaimable'])}{_share(row)}",
        ]
        for row in rows
    ]
    print_table(("KIND", "COUNT", "ACTIVE", "SIZE", "RECLAIMABLE"), table)
    if verbose:
        for kind, found in _each(client).items():
            print(f"\n{kind}:")
            listed = [(row["name"], format_bytes(row["size"])) for row in found]
            print_table(("NAME", "SIZE"), listed)


def _share(row: dict[str, Any]) -> str:
    return f" ({100 * row['reclaimable'] // row['size']}%)" if row["size"] else ""


def _each(client: Client) -> dict[str, list[dict[str, Any]]]:
    """Name and bytes of every single thing."""
    written = [(row["name"], row["written"]) for row in client.ps(all=True, written=True)]
    images = [(row["name"] or row["digest"], row["size"]) for row in client.images()]
    volumes = [(row["name"], row["size"]) for row in client.volumes()]
    found = {"instances": written, "images": images, "volumes": volumes}
    return {
        kind: [{"name": name, "size": size} for name, size in rows] for kind, rows in found.items()
    }


COMMANDS = {"prune": prune}
