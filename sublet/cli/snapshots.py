"""Commands on snapshots: `snapshot`, `snapshots`, `fork`, `rollback`."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from sublet.cli.common import JSON, JSON_ALWAYS, ago, each_named, print_found
from sublet.cli.completing import instance_names
from sublet.cli.output import Progress, print_rows
from sublet.domain.errors import NoSuchSnapshot
from sublet.domain.units import format_bytes
from sublet.sdk import Client

NAMES = click.argument("names", nargs=-1, required=True, metavar="SNAPSHOT...")


class Creating(click.Group):
    """A group whose first word may be left out: what is none of its commands is for `create`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["create", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its commands, and what `create` may have for its first word."""
        names = self.commands["create"].params[0].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *names]


@click.group(cls=Creating)
def snapshot() -> None:
    """Keep the files of an instance as they are now: `sublet snapshot INSTANCE [--name NAME]`."""


@snapshot.command()
@click.argument("instance", metavar="INSTANCE", shell_complete=instance_names)
@click.option("--name", default="", metavar="NAME", help="Name of the snapshot.")
@click.option("--memory", is_flag=True, help="Of a running VM, keep the memory as well.")
def create(instance: str, name: str, memory: bool) -> None:
    """Take a snapshot and print its id; a running instance is paused for a moment."""
    with Progress() as progress:
        made = Client().snapshot(instance, name, memory=memory, progress=progress)
    print(made["id"])


@click.command()
@click.argument("instance", required=False, default="", metavar="[INSTANCE]")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@JSON
def ls(instance: str, quiet: bool, as_json: bool) -> None:
    """List the snapshots of an instance, or all; sizes count what is shared too."""
    rows = Client().snapshots(instance)
    headers = ("ID", "NAME", "INSTANCE", "KEEPS", "SIZE", "CREATED")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet)


def _row(row: dict[str, Any]) -> list[str]:
    keeps = "disk and memory" if row["memory"] else "disk"
    about = [row["id"], row["name"] or "-", row["instance_name"], keeps]
    return [*about, format_bytes(row["size"]), ago(row["created"])]


@snapshot.command()
@NAMES
@JSON_ALWAYS
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of a snapshot: a JSON object, an array for several."""
    print_found([Client().inspect_snapshot(name) for name in names])


@snapshot.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Delete snapshots. What was forked of them stays."""
    return each_named(names, Client().remove_snapshot, fine=(NoSuchSnapshot,) if force else ())


snapshot.add_command(ls)


@click.command()
@click.argument("source", metavar="INSTANCE|SNAPSHOT", shell_complete=instance_names)
@click.option("--name", default="", metavar="NAME", help="Name of the new instance.")
@click.option(
    "-p",
    "--publish",
    "ports",
    multiple=True,
    metavar="[[IP:]HOSTPORT:]PORT[/udp]",
    help="Publish a port; without, the source's ones where the host chooses.",
)
@click.option("--no-wait", is_flag=True, help="Fail if spot instances would have to make room.")
def fork(source: str, name: str, ports: tuple[str, ...], no_wait: bool) -> None:
    """Make an instance with the files that INSTANCE has now, or SNAPSHOT has kept; print its id.

    It runs if its source does; of a running VM, and of a snapshot with memory, it goes on where
    that was, under an identity of its own. Volumes that have a name are shared, others are copied.
    """
    with Progress() as progress:
        client = Client()
        made = client.fork_of(source, name, ports=ports, progress=progress, wait=not no_wait)
    print(made["id"])


@click.command()
@click.argument("instance", metavar="INSTANCE", shell_complete=instance_names)
@click.argument("kept", metavar="SNAPSHOT")
def rollback(instance: str, kept: str) -> None:
    """Give INSTANCE back the files that its SNAPSHOT has kept; what it has now is lost.

    A running instance is stopped and started again; of a snapshot with memory, a VM goes on
    where it was then.
    """
    with Progress() as progress:
        Client().rollback(instance, kept, progress=progress)
    print(instance)


COMMANDS = {"snapshot": snapshot, "snapshots": ls, "fork": fork, "rollback": rollback}
