"""Commands that show what is in instances, and what all commands on them share."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import click

from sublet.cli.common import JSON_ALWAYS, print_found
from sublet.cli.completing import instance_names
from sublet.domain.errors import InvalidArgument, NoSuchImage, NoSuchInstance
from sublet.sdk import Client

NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="INSTANCE...", shell_complete=instance_names
)
NAME = click.argument("name", metavar="INSTANCE", shell_complete=instance_names)


@click.command()
@click.argument(
    "names", nargs=-1, required=True, metavar="INSTANCE|IMAGE...", shell_complete=instance_names
)
@JSON_ALWAYS
@click.option(
    "--type",
    "kind",
    type=click.Choice(["instance", "container", "image"]),
    help="Look among these only.",
)
def inspect(names: tuple[str, ...], as_json: bool, kind: str | None) -> None:
    """Show all that is known of an instance, or of an image where no instance has the name.

    A JSON object, an array for several.
    """
    print_found([_inspect(Client(), name, kind) for name in names])


def _inspect(client: Client, name: str, kind: str | None) -> dict[str, Any]:
    if kind == "image":
        return client.inspect_image(name)
    try:
        return client.inspect(name)
    except NoSuchInstance:
        if kind:
            raise
        with contextlib.suppress(NoSuchImage, InvalidArgument):
            return client.inspect_image(name)
        raise


@click.command()
@NAME
@click.option("-o", "--output", metavar="FILE", help="Write here, not to standard output.")
def export(name: str, output: str | None) -> None:
    """Write an instance's file system to a tar file."""
    if output is None and sys.stdout.isatty():
        raise InvalidArgument("A tar file is nothing for a terminal.", hint="Use -o FILE.")
    with _target(output) as file:
        for piece in Client().export(name):
            file.write(piece)


@contextlib.contextmanager
def _target(output: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that is there when it is complete and not before."""
    if output is None:
        yield sys.stdout.buffer
        return
    directory = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(directory):
        raise InvalidArgument(f"There is no directory {directory}.")
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".sublet-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise


COMMANDS = {
    "inspect": inspect,
    "export": export,
}
