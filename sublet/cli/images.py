"""Commands on images."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import click

from sublet.cli.instances import JSON, each
from sublet.cli.output import Progress, print_json, print_table
from sublet.domain.errors import InvalidArgument, NoSuchImage
from sublet.domain.units import format_age, format_bytes
from sublet.sdk import Client


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Digests only.")
@JSON
def images(quiet: bool, as_json: bool) -> None:
    """List the images on this host."""
    rows = Client().images()
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            print(row["digest"])
    else:
        print_table(("NAME", "DIGEST", "SIZE", "CREATED"), [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    age = "-"
    if row["created"]:
        age = f"{format_age(time.time() - datetime.fromisoformat(row['created']).timestamp())} ago"
    name = ", ".join(row["names"]) or "-"
    return [name, row["digest"].removeprefix("sha256:")[:12], format_bytes(row["size"]), age]


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("-t", "--tag", "name", default="", metavar="NAME", help="Name the image.")
@click.option("-f", "--file", default="", metavar="FILE", help="Containerfile to use.")
def build(directory: str, name: str, file: str) -> None:
    """Build the image that DIR's Containerfile or Dockerfile describes, packed into one file."""
    if not os.path.isdir(directory):
        raise InvalidArgument(f"There is no directory {directory}.")
    with Progress(keep=True) as progress:
        made = Client().build(
            os.path.abspath(directory),
            name=name,
            file=os.path.abspath(file) if file else "",
            progress=progress,
        )
    print(made["digest"])


@click.command()
@click.argument("reference", metavar="REF")
def pull(reference: str) -> None:
    """Fetch an image from its registry, or make it from a Debian mirror."""
    with Progress() as progress:
        made = Client().pull(reference, progress)
    print(made["digest"])


@click.command()
@click.argument("source", metavar="IMAGE|ROOTFS_DIR|OCI_LAYOUT")
@click.option("-o", "--output", required=True, metavar="FILE.sif", help="The file to write.")
def pack(source: str, output: str) -> None:
    """Write an image, a root file system or an OCI layout into one runnable file."""
    if source.startswith((".", "/")) or os.path.isdir(source):
        source = os.path.abspath(source)
    with Progress() as progress:
        made = Client().pack(source, os.path.abspath(output), progress=progress)
    print(made["digest"])


@click.command("import")
@click.argument("file", metavar="FILE.sif|ROOTFS.tar")
@click.option("-t", "--tag", "name", default="", metavar="NAME", help="Name the image.")
@click.option("--trust", is_flag=True, help="Mount a foreign file as it is: you vouch for it.")
def import_(file: str, name: str, trust: bool) -> None:
    """Take in a packed file, or a root file system as a tar."""
    with Progress() as progress:
        made = Client().import_image(
            os.path.abspath(file), name=name, trust=trust, progress=progress
        )
    print(made["digest"])


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="Drop a name that instances use; none is fine.")
def rmi(names: tuple[str, ...], force: bool) -> int:
    """Remove images: the name, and with the last name the file."""
    client = Client()

    def work(name: str) -> None:
        try:
            client.remove_image(name, force=force)
        except NoSuchImage:
            if not force:
                raise
        print(name)

    return each(names, work)


COMMANDS = {
    "images": images,
    "build": build,
    "pull": pull,
    "pack": pack,
    "import": import_,
    "rmi": rmi,
}
