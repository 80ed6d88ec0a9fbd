"""`sublet pool …`: sandboxes that are ready before they are asked for."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli.common import JSON, ago, each_named
from sublet.cli.completing import image_or_catalog_names, pool_names
from sublet.cli.output import Progress, print_rows
from sublet.cli.snapshots import Creating
from sublet.sdk import Client


@click.group(cls=Creating)
def pool() -> None:
    """Keep sandboxes ready, to be handed out at once: `sublet pool IMAGE --size N`.

    That is short for `sublet pool create`, whose --help tells the rest.
    """


@pool.command(short_help="Make a pool, or change its size.")
@click.argument("image", metavar="IMAGE", shell_complete=image_or_catalog_names)
@click.option(
    "--size",
    type=int,
    required=True,
    metavar="N",
    help="So many are ready; --instance-size is how large.",
)
@click.option("--vm", is_flag=True, help="Each with a kernel of its own.")
@click.option(
    "--instance-size",
    default="1x0.5",
    show_default=True,
    metavar="SIZE",
    help="vCPUs x GiB of each, or a name of `sizes`.",
)
@click.option(
    "--egress",
    multiple=True,
    default=("internet",),
    show_default="internet",
    metavar="WHOM",
    help="Whom they may connect to: none, internet, or names.",
)
@click.option("--network", default="", metavar="NETWORK", help="The network that they are on.")
@click.option("--name", default="", metavar="NAME", help="Name of the pool.")
def create(image: str, size: int, vm: bool, instance_size: str, **options: Any) -> None:
    """Make a pool, or give it another size, and print its name; it fills in the background.

    A sandbox that the SDK or `sublet mcp` asks for is taken from it where it is to be like these.
    """
    with Progress() as progress:
        made = Client().set_pool(
            image,
            size,
            name=options["name"],
            vm=vm,
            instance_size=instance_size,
            egress=list(options["egress"]),
            network=options["network"],
            progress=progress,
        )
    print(made["name"])


@pool.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@JSON
def list_pools(quiet: bool, as_json: bool) -> None:
    """List pools."""
    rows = Client().pools()
    headers = ("NAME", "IMAGE", "ISOLATION", "SIZE", "EGRESS", "READY", "CREATED", "WHY NOT")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet, key="name")


def _row(row: dict[str, Any]) -> list[str]:
    about = [row["name"], row["image"], row["isolation"], row["instance_size"]]
    about += [",".join(row["egress"] or ["default"]), f"{row['ready']} of {row['size']}"]
    return [*about, ago(row["created"]), row["trouble"] or "-"]


@pool.command(short_help="Delete pools.")
@click.argument("names", nargs=-1, required=True, metavar="POOL...", shell_complete=pool_names)
def rm(names: tuple[str, ...]) -> int:
    """Delete pools with their sandboxes; those that were handed out stay."""
    return each_named(names, Client().remove_pool)


COMMANDS = {"pool": pool}
