"""Commands that list instances and show what is in them."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, Any

import click

from sublet.cli.output import print_json, print_table
from sublet.domain.errors import InvalidArgument, SubletError
from sublet.domain.units import format_age
from sublet.sdk import Client

NAMES = click.argument("names", nargs=-1, required=True, metavar="INSTANCE...")
NAME = click.argument("name", metavar="INSTANCE")
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
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped instances too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@JSON
def ps(everything: bool, quiet: bool, as_json: bool) -> None:
    """List running instances."""
    rows = Client().ps(all=everything)
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            print(row["id"])
    else:
        headers = ("ID", "NAME", "IMAGE", "STATE", "SIZE", "PORTS", "CREATED")
        print_table(headers, [_ps_row(row) for row in rows])


def _ps_row(row: dict[str, Any]) -> list[str]:
    state = row["state"]
    if row["exit_code"] is not None and state == "stopped":
        state = f"stopped ({row['exit_code']})"
    elif row.get("health", "none") != "none" and state == "running":
        state = f"running ({row['health']})"
    ports = ", ".join(port_text(port) for port in row["ports"])
    age = format_age(time.time() - datetime.fromisoformat(row["created"]).timestamp())
    return [row["id"], row["name"], row["image"], state, row["size"], ports, f"{age} ago"]


def port_text(port: dict[str, Any]) -> str:
    """A published port as `ps` shows it."""
    outer = f"{port['host_ip']}:{port['host_port']}"
    return f"{outer}->{port['container_port']}/{port['protocol']}"


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
@click.option("-f", "--follow", is_flag=True, help="Go on until the instance ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
def logs(name: str, follow: bool, timestamps: bool) -> None:
    """Show what an instance wrote to standard output and standard error."""
    for line in Client().logs(name, follow=follow):
        stamp = f"{line['time']} " if timestamps else ""
        data = (stamp + line["data"]).encode(errors="surrogateescape")
        stream = sys.stderr.buffer if line["stream"] == 2 else sys.stdout.buffer
        stream.write(data)
        stream.flush()


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
    "ps": ps,
    "inspect": inspect,
    "logs": logs,
    "export": export,
}
