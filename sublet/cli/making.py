"""Commands that make images, and files of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from sublet.cli.output import Progress
from sublet.domain.errors import InvalidArgument
from sublet.domain.progress import silent
from sublet.sdk import Client


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("-t", "--tag", "name", default="", metavar="NAME", help="Name the image.")
@click.option("-f", "--file", default="", metavar="FILE", help="Containerfile to use.")
@click.option(
    "--build-arg",
    "arguments",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Value of an ARG; without one, that of the environment.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def build(directory: str, name: str, file: str, arguments: tuple[str, ...], quiet: bool) -> None:
    """Build the image that DIR's Containerfile or Dockerfile describes, packed into one file."""
    if not os.path.isdir(directory):
        raise InvalidArgument(f"There is no directory {directory}.")
    with Progress(keep=True) as progress:
        made = Client().build(
            os.path.abspath(directory),
            name=name,
            file=os.path.abspath(file) if file else "",
            arguments=_arguments(arguments),
            progress=silent if quiet else progress,
        )
    print(made["digest"])


def _arguments(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` by name; a name alone takes this process's value, if there is one."""
    found = dict(text.partition("=")[::2] for text in texts if "=" in text)
    own = {text: os.environ[text] for text in texts if text in os.environ}
    return {**own, **found}


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
@click.argument("file", metavar="FILE.sif|ROOTFS.tar|DISK")
@click.option("-t", "--tag", "name", default="", metavar="NAME", help="Name the image.")
@click.option("--trust", is_flag=True, help="Mount a foreign file as it is: you vouch for it.")
def import_(file: str, name: str, trust: bool) -> None:
    """Take in a packed file, a root file system as a tar, or a VM's disk as qcow2 or raw.

    Which of them FILE is, its content tells, not its name."""
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
