"""Commands that make images, and files of them."""

from __future__ import annotations

import os

import click

from sublet.cli.output import Progress
from sublet.domain.errors import InvalidArgument
from sublet.sdk import Client


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


COMMANDS = {
    "build": build,
    "pack": pack,
    "import": import_,
}
