"""Commands on the images of this host."""

from __future__ import annotations

import sys
from typing import Any

import click

from sublet.cli.common import FORCE, JSON, PRUNE_FILTERS, ago, each, filters, print_found
from sublet.cli.completing import image_names
from sublet.cli.output import confirmed, one_line, print_json, print_rows, print_table
from sublet.domain.errors import NoSuchImage
from sublet.domain.units import format_bytes
from sublet.sdk import Client

NAME = click.argument("name", metavar="IMAGE", shell_complete=image_names)
NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="IMAGE...", shell_complete=image_names
)
NO_TRUNC = click.option("--no-trunc", is_flag=True, help="Whole digests and texts.")
WIDTH = 45


@click.command()
@click.argument("pattern", required=False, metavar="[NAME[:TAG]]")
@click.option("-a", "--all", "everything", is_flag=True, help="As without it, for Docker's sake.")
@click.option("-q", "--quiet", is_flag=True, help="Digests only.")
@filters("dangling=true, reference=PATTERN, label=KEY[=VALUE], before=, since=, until=.", "-f")
@click.option("--digests", is_flag=True, help="The digests that registries know them by, too.")
@NO_TRUNC
@JSON
def images(
    pattern: str | None,
    everything: bool,
    quiet: bool,
    filters: tuple[str, ...],
    digests: bool,
    no_trunc: bool,
    as_json: bool,
) -> None:
    """List the images on this host, or those whose name fits a pattern."""
    rows = Client().images([*filters, f"reference={pattern}"] if pattern else filters)
    headers = ["NAME", "DIGEST", *(["REGISTRY DIGEST"] if digests else []), "SIZE", "CREATED"]

    def cells(row: dict[str, Any]) -> list[str]:
        return _row(row, digests, no_trunc)

    print_rows(rows, headers, cells, as_json=as_json, quiet=quiet, key="digest")


def _row(row: dict[str, Any], digests: bool, no_trunc: bool) -> list[str]:
    name = ", ".join(row["names"]) or "<none>"
    known = [", ".join(row["repo_digests"]) or "<none>"] if digests else []
    digest = row["digest"] if no_trunc else _short(row["digest"])
    return [name, digest, *known, format_bytes(row["size"]), ago(row["created"])]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


@click.command()
@click.argument("source", metavar="IMAGE")
@click.argument("name", metavar="NAME[:TAG]")
def tag(source: str, name: str) -> None:
    """Give an image a further name."""
    Client().tag(source, name)


@click.command()
@NAME
@click.option("-q", "--quiet", is_flag=True, help="Digests only.")
@NO_TRUNC
@JSON
def history(name: str, quiet: bool, no_trunc: bool, as_json: bool) -> None:
    """Show the steps that made an image, the last first."""
    rows = Client().image_history(name)
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            digest = row["digest"] or "<missing>"
            print(digest if no_trunc else _short(digest))
    else:
        headers = ("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT")
        print_table(headers, [_step(row, no_trunc) for row in rows])


def _step(row: dict[str, Any], no_trunc: bool) -> list[str]:
    digest, by = row["digest"] or "<missing>", one_line(row["created_by"])
    if not no_trunc:
        digest, by = _short(digest), by if len(by) <= WIDTH else f"{by[: WIDTH - 1]}…"
    size = "-" if row["size"] is None else format_bytes(row["size"])
    return [digest, ago(row["created"]), by, size, one_line(row["comment"])]


@click.command("inspect")
@NAMES
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
def inspect_image(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of an image: a JSON object, an array for several."""
    client = Client()
    print_found([client.inspect_image(name) for name in names])


@click.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="All names, and those in use; none is fine.")
def rmi(names: tuple[str, ...], force: bool) -> int:
    """Remove images: the name, and with the last name the file."""
    client = Client()

    def work(name: str) -> None:
        try:
            removed = client.remove_image(name, force=force)
        except NoSuchImage:
            if not force:
                raise
            return
        for each_name in removed["untagged"]:
            print(f"Untagged: {each_name}")
        for digest in removed["deleted"]:
            print(f"Deleted: {digest}")

    return each(names, work)


@click.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Also images that have a name.")
@filters(PRUNE_FILTERS)
@FORCE
@JSON
def prune_images(everything: bool, filters: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Remove images that have no name and that no instance needs.

    With -a, those with a name as well, and what is kept to make builds and pulls faster.
    """
    client = Client()
    planned = client.prune_images(all=everything, filters=filters, dry_run=True)
    print(f"To be removed: {_what(planned)}, {format_bytes(planned['size'])}.", file=sys.stderr)
    if not confirmed(force):
        return 1
    done = client.prune_images(all=everything, filters=filters)
    if as_json:
        print_json(done)
        return 0
    for row in done["images"]:
        for each_name in row["names"]:
            print(f"Untagged: {each_name}")
        print(f"Deleted: {row['digest']}")
    print(f"Total reclaimed space: {format_bytes(done['size'])}")
    return 0


def _what(planned: dict[str, Any]) -> str:
    count = len(planned["images"])
    cache = f" and {format_bytes(planned['cache'])} of caches" if planned["cache"] else ""
    return f"{count} image{'' if count == 1 else 's'}{cache}"


COMMANDS = {
    "images": images,
    "tag": tag,
    "history": history,
    "rmi": rmi,
}
