"""Commands on backups: `backup`, `backups`, `restore`."""

from __future__ import annotations

import sys
from typing import Any

import click

from sublet.cli.common import FORCE, JSON, ago, each_named
from sublet.cli.completing import backup_ids, instance_names
from sublet.cli.output import Progress, confirmed, print_json, print_rows
from sublet.cli.run import warn
from sublet.cli.snapshots import Creating
from sublet.domain.errors import NoSuchBackup
from sublet.domain.units import format_bytes
from sublet.sdk import Client

REPO = click.option(
    "--repo",
    "repository",
    default="",
    metavar="REPO",
    help="Repository: /DIRECTORY, sftp:USER@HOST:/DIRECTORY or s3:https://HOST/BUCKET.",
)


@click.group(cls=Creating)
def backup() -> None:
    """Copy what an instance wrote into a repository: `sublet backup INSTANCE`."""


@backup.command()
@click.argument("instance", metavar="INSTANCE", shell_complete=instance_names)
@REPO
@click.option("--path", "paths", multiple=True, metavar="PATH", help="Only what it wrote there.")
def create(instance: str, repository: str, paths: tuple[str, ...]) -> None:
    """Back up what INSTANCE wrote, its volumes and its configuration; print the backup's id.

    A running instance is paused for a moment. Only what has changed since the last backup is sent.
    """
    with Progress() as progress:
        made = Client().backup(instance, repository=repository, paths=paths, progress=progress)
    print(made["id"])


@click.command()
@click.argument("instance", required=False, default="", metavar="[INSTANCE]")
@REPO
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@JSON
def ls(instance: str, repository: str, quiet: bool, as_json: bool) -> None:
    """List the backups of an instance, or all."""
    with Progress() as progress:
        progress.later(1.0, f"Looking into {repository or 'the repository'}")
        rows = Client().backups(instance, repository=repository)
    headers = ("ID", "INSTANCE", "TIME", "SIZE", "COMPLETE")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet)


def _row(row: dict[str, Any]) -> list[str]:
    complete = "yes" if row["complete"] else f"no: {row['missing'] or 'all of it'} missing"
    return [row["id"], row["name"], ago(row["time"]), format_bytes(row["size"]), complete]


@backup.command()
@click.argument("names", nargs=-1, required=True, metavar="BACKUP...", shell_complete=backup_ids)
@REPO
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
def rm(names: tuple[str, ...], repository: str, force: bool) -> int:
    """Delete backups. `sublet backup prune` gives back the room that they took."""
    fine = (NoSuchBackup,) if force else ()
    client = Client()
    return each_named(
        names, lambda name: client.remove_backup(name, repository=repository), fine=fine
    )


@backup.command()
@REPO
@click.option("--data", is_flag=True, help="Read every byte of it.")
def verify(repository: str, data: bool) -> None:
    """Check that the repository is sound."""
    with Progress() as progress:
        Client().verify_backups(repository=repository, data=data, progress=progress)


@backup.command()
@click.argument("instance", required=False, default="", metavar="[INSTANCE]")
@REPO
@click.option("--keep-last", type=click.IntRange(0), default=0, metavar="N", help="The last N.")
@click.option(
    "--keep-daily", type=click.IntRange(0), default=0, metavar="N", help="One a day, N days."
)
@click.option(
    "--keep-weekly", type=click.IntRange(0), default=0, metavar="N", help="One a week, N weeks."
)
@FORCE
@JSON
def prune(
    instance: str,
    repository: str,
    keep_last: int,
    keep_daily: int,
    keep_weekly: int,
    force: bool,
    as_json: bool,
) -> int:
    """Delete the backups of INSTANCE, or of each, that no --keep flag keeps; free their room.

    Without such a flag no backup is deleted, and what deleted ones have left is given back.
    """
    client = Client()
    rules: dict[str, Any] = {
        "keep_last": keep_last,
        "keep_daily": keep_daily,
        "keep_weekly": keep_weekly,
        "repository": repository,
    }
    with Progress() as progress:
        planned = client.prune_backups(instance, **rules, dry_run=True, progress=progress)
    count = len(planned)
    print(f"To be removed: {count} backup{'' if count == 1 else 's'}.", file=sys.stderr)
    if not confirmed(force):
        return 1
    with Progress() as progress:
        done = client.prune_backups(instance, **rules, progress=progress)
    if as_json:
        print_json(done)
    else:
        for row in done:
            print(row["id"])
    return 0


backup.add_command(ls)


@click.command()
@click.argument("name", metavar="BACKUP", shell_complete=backup_ids)
@REPO
@click.option("--as", "new_name", default="", metavar="NAME", help="Name of the new instance.")
@click.option(
    "--size", default="", metavar="SIZE", help="vCPUs x GiB, such as 2x4, or a name of `sizes`."
)
@click.option("--vm", is_flag=True, help="Make a VM of a container.")
@click.option("--start/--no-start", default=None, help="Start it; without: if it ran then.")
@click.option("--trust", is_flag=True, help="Let it mount of this host what it asks for.")
@click.option("--no-wait", is_flag=True, help="Fail if spot instances would have to make room.")
def restore(
    name: str,
    repository: str,
    new_name: str,
    size: str,
    vm: bool,
    start: bool | None,
    trust: bool,
    no_wait: bool,
) -> None:
    """Make an instance with what BACKUP holds, and print its id.

    It has its files, volumes, ports and all other options, and an id and an address of its own;
    its name as well, unless that is taken.
    """
    with Progress() as progress:
        made = Client().restore(
            name,
            new_name,
            repository=repository,
            size=size,
            vm=vm,
            start=start,
            trust=trust,
            progress=progress,
            wait=not no_wait,
        )
    warn(made)
    print(made["id"])


COMMANDS = {"backup": backup, "backups": ls, "restore": restore}
