"""Commands on the files of instances."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from sublet.cli.output import Progress, printable
from sublet.domain.copying import STREAM, Side, parse_sides
from sublet.domain.errors import InvalidArgument, SubletError
from sublet.domain.units import format_bytes
from sublet.sdk import Client

SILENT, PAUSE = 1.0, 1.0
"""Seconds until progress is shown, and between two lines of it."""
_CHUNK = 1 << 17
_CHANGE = "Change its configuration, as CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER… would."


class Meter:
    """Counts what is copied, and tells of it once that takes longer than a second."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.total = 0
        self._next = time.monotonic() + SILENT

    def __call__(self, count: int) -> None:
        self.total += count
        if self._progress and time.monotonic() >= self._next:
            self._progress(f"{format_bytes(self.total)} copied")
            self._next = time.monotonic() + PAUSE


@click.command()
@click.argument("source", metavar="SRC|-")
@click.argument("destination", metavar="DEST|-")
@click.option("-a", "--archive", is_flag=True, help="Keep owners: user and group ids.")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="Follow a link at SRC.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def cp(source: str, destination: str, archive: bool, follow: bool, quiet: bool) -> None:
    """Copy files between an instance, running or stopped, and this host.

    One of SRC and DEST is INSTANCE:PATH. A directory is copied whole; SRC/. are its contents.
    With `-` in the place of the other a tar stream is read from standard input, or written to
    standard output.
    """
    origin, target = parse_sides(source, destination)
    with Progress() as progress:
        meter = Meter(None if quiet else progress)
        if origin.path == STREAM and not origin.instance:
            _extract(target, meter, archive)
        elif target.path == STREAM and not target.instance:
            _archive(origin, meter, follow)
        elif target.instance:
            done = Client().copy_to(
                target.instance,
                origin.path,
                target.path,
                archive=archive,
                follow=follow,
                meter=meter,
            )
            _tell(done["left_out"])
        else:
            _copy_from(origin, target.path, meter, archive=archive, follow=follow)


def _copy_from(origin: Side, path: str, meter: Meter, *, archive: bool, follow: bool) -> None:
    try:
        done = Client().copy_from(
            origin.instance, origin.path, path, archive=archive, follow=follow, meter=meter
        )
    except (SubletError, KeyboardInterrupt):
        if meter.total and os.path.isdir(path):
            print(f"sublet: {path} may hold a part of the copy.", file=sys.stderr)
        raise
    _tell(done["left_out"])


def _archive(origin: Side, meter: Meter, follow: bool) -> None:
    if sys.stdout.isatty():
        raise InvalidArgument("A tar stream is nothing for a terminal.", hint="Redirect it.")
    for piece in Client().archive(origin.instance, origin.path, follow=follow):
        sys.stdout.buffer.write(piece)
        meter(len(piece))
    sys.stdout.buffer.flush()


def _extract(target: Side, meter: Meter, archive: bool) -> None:
    if sys.stdin.isatty():
        raise InvalidArgument("A tar stream is expected on standard input.", hint="Redirect it.")
    done = Client().extract(target.instance, target.path, _input(meter), archive=archive)
    _tell(done["left_out"])


def _input(meter: Meter) -> Iterator[bytes]:
    while piece := os.read(sys.stdin.fileno(), _CHUNK):
        meter(len(piece))
        yield piece


def _tell(left_out: int) -> None:
    if left_out:
        print(f"sublet: devices left out: {left_out}", file=sys.stderr)


@click.command()
@click.argument("name", metavar="INSTANCE")
@click.option(
    "--mount", default="", metavar="DIRECTORY",
    help="Of the host's directory that it has there copy-on-write, as of `sublet try --keep`.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(name: str, mount: str, as_json: bool) -> None:
    """Show what an instance has changed of its image's files: A added, C changed, D deleted."""
    rows = Client().diff(name, mount=mount)
    if as_json:
        _print_array(rows)
        return
    plain = not sys.stdout.isatty()
    for row in rows:
        path = row["path"] if plain else printable(row["path"])
        sys.stdout.buffer.write(os.fsencode(f"{row['kind']} {path}\n"))
    sys.stdout.buffer.flush()


def _print_array(rows: Iterable[dict[str, Any]]) -> None:
    """A JSON array, row by row: there may be millions."""
    lead = "["
    for row in rows:
        print(f"{lead}\n  {json.dumps(row)}", end="")
        lead = ","
    print("[]" if lead == "[" else "\n]")


@click.command()
@click.argument("name", metavar="INSTANCE")
@click.argument("image", metavar="[NAME[:TAG]]", default="")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help=_CHANGE)
@click.option("-m", "--message", default="", metavar="TEXT", help="For the image's history.")
@click.option("-a", "--author", default="", metavar="TEXT", help="For the image's history.")
@click.option(
    "-p", "--pause", type=bool, default=True, show_default=True, help="Pause it meanwhile."
)
@click.option("-o", "--output", default="", metavar="FILE.sif", help="Write the image here.")
def commit(
    name: str,
    image: str,
    changes: tuple[str, ...],
    message: str,
    author: str,
    pause: bool,
    output: str,
) -> None:
    """Make an image of an instance's files as they are now, without what is mounted in it.

    With -o and no name the image is in that file alone.
    """
    with Progress() as progress:
        made = Client().commit(
            name,
            image,
            changes=changes,
            message=message,
            author=author,
            pause=pause,
            output=os.path.abspath(output) if output else "",
            progress=progress,
        )
    print(made["digest"])


COMMANDS = {"cp": cp, "diff": diff, "commit": commit}
