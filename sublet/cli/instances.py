"""Commands that show what is in instances, and what all commands on them share."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import click

from sublet.cli.completing import instance_names
from sublet.cli.output import print_json
from sublet.domain.errors import InvalidArgument, SubletError
from sublet.sdk import Client

NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="INSTANCE...", shell_complete=instance_names
)
NAME = click.argument("name", metavar="INSTANCE", shell_complete=instance_names)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def each(names: Iterable[str], work: Callable[[str], None]) -> int:
    """Do `work` for every name, the rest too when one fails; the exit code."""
    failed = False
    for name in names:
        try:
            work(name)
        except SubletError as error:
            failed = True
            print(f"sublet: {error.message}", file=sys.stderr)
            if error.hint:
                print(f"        {error.hint}", file=sys.stderr)
    return int(failed)


@click.command()
@NAMES
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of an instance: a JSON object, an array for several."""
    client = Client()
    found = [client.inspect(name) for name in names]
    print_json(found[0] if len(found) == 1 else found)


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
