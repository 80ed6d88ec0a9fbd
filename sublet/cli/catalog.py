"""`sublet catalog …`: the images that Sublet builds itself."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli.common import JSON
from sublet.cli.completing import catalog_entries
from sublet.cli.output import print_json, print_table
from sublet.sdk import Client


@click.group()
def catalog() -> None:
    """The images that are built on this host, of Debian's packages, when they are asked for.

    A short name, such as postgres:15, means the image that has it on this host, then the
    catalogue's, then Docker Hub's. docker.io/library/postgres:15 is Docker Hub's.
    """


@catalog.command("ls", short_help="List its images, their versions, and which are here.")
@JSON
def list_catalog(as_json: bool) -> None:
    """List the images of the catalogue, their versions, and which are on this host."""
    rows = Client().catalog()
    if as_json:
        print_json(rows)
    else:
        print_table(("NAME", "VERSIONS", "HERE", "PORT", "WHAT"), [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    versions = [version["tag"] for version in row["versions"]]
    here = [version["tag"] for version in row["versions"] if version["here"]]
    port = str(row["port"] or "-")
    return [row["name"], ", ".join(versions), ", ".join(here) or "-", port, row["summary"]]


@catalog.command(short_help="Print an image's Containerfile, credentials and URL.")
@click.argument("name", metavar="NAME[:TAG]", shell_complete=catalog_entries)
@JSON
def show(name: str, as_json: bool) -> None:
    """Print an image's Containerfile, after its versions, credentials and URL."""
    entry = Client().catalog_entry(name)
    if as_json:
        print_json(entry)
        return
    for version in entry["versions"]:
        print(f"# {entry['name']}:{version['tag']} is of Debian {version['suite']}.")
    for key, value in entry["environment"].items():
        print(f"# -e {key}={value}")
    if entry["example_url"]:
        print(f"# URL: {entry['example_url']}")
    print(f"\n{entry['containerfile']}", end="")


COMMANDS = {"catalog": catalog}
