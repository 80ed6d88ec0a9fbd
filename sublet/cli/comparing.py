"""`sublet compare`: one image as containers and as VMs, measured on this host."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

import click

from sublet.cli.common import JSON
from sublet.cli.output import Progress, print_json, print_table
from sublet.domain.comparison import LIMITS
from sublet.domain.units import format_bytes
from sublet.sdk import Client
from sublet.sdk import compare as measure

SIDES = ("container", "vm")


@click.command()
@click.argument("image", metavar="IMAGE")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
@click.option("--size", default="", metavar="CPUSxGIB", help="Of each instance, such as 1x0.5.")
@click.option("--count", default=10, metavar="N", help="Run so many of each at once; default 10.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable in each.")
@click.option("--out", default="", metavar="FILE", help="Draw it into a file, .png or .svg.")
@JSON
def compare(
    image: str,
    command: tuple[str, ...],
    size: str,
    count: int,
    env: tuple[str, ...],
    out: str,
    as_json: bool,
) -> None:
    """Run an image as containers and as VMs on this host, and compare what they take.

    Shows how long one takes to start, what each takes of memory and disk, and how many of them
    this host would hold. The command has to go on until it is ended. All that is started is
    removed, also when this is interrupted.
    """
    if out:
        from sublet.cli.charts import picture_format

        picture_format(out)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    where = os.path.abspath(image) if os.path.isfile(image) else image
    with Progress() as progress:
        found = measure(
            Client(), where, command, size=size, count=count, env=env, progress=progress
        )
    if out:
        from sublet.cli.comparison_chart import draw

        draw(found, out)
    if as_json:
        print_json(found)
    else:
        print_table(("", "CONTAINER", "VM"), rows(found))


def _interrupted(number: int, _: object) -> NoReturn:
    """The first signal ends it, the next ones do not disturb the removal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The lines of the table: what, of a container, of a VM."""
    lines: list[tuple[str, list[str]]] = [
        ("start", [_time(side["start_ms"]) for side in _sides(found)]),
        ("start, cold", [_time(side["cold_start_ms"]) for side in _sides(found)]),
    ]
    for what in ("memory", "disk"):
        for key, name in (("each", "each"), ("shared", "once"), ("total", f"all {found['count']}")):
            cells = [format_bytes(side[what][key]) for side in _sides(found)]
            lines.append((f"{what}, {name}", cells))
    lines.append(("processes", [f"{side['processes']:g}" for side in _sides(found)]))
    for limit, text in LIMITS.items():
        cells = [_held(side["holds"], limit) for side in _sides(found)]
        lines.append((f"host holds, by {text}", cells))
    return [(name, *cells) for name, cells in lines]  # type: ignore[misc]


def _sides(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [found[side] for side in SIDES]


def _time(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _held(holds: dict[str, Any], limit: str) -> str:
    """How many, and a mark where this is what is reached first."""
    if limit not in holds["by"]:
        return "-"
    mark = " <" if holds["limit"] == limit else ""
    return f"{holds['by'][limit]:,}{mark}"


COMMANDS = {"compare": compare}
