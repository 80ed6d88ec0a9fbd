"""`sublet ps`."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli.common import JSON, ago, filters
from sublet.cli.output import print_rows
from sublet.domain.units import format_bytes
from sublet.sdk import Client

WIDTH = 40
"""Characters of an image's name that are shown."""


@click.command()
@click.option(
    "-a",
    "--all",
    "everything",
    is_flag=True,
    help="Stopped ones and those of pools too.",
)
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@filters(
    "ancestor, before, exited, health, id, label, name, network, publish, since, status, "
    "until, volume.",
    "-f",
)
@click.option("-n", "--last", type=click.IntRange(1), default=None, help="The newest N, any state.")
@click.option("-l", "--latest", is_flag=True, help="The newest one, whatever its state.")
@click.option("-s", "--size", "written", is_flag=True, help="What each wrote, on the disk.")
@click.option("--no-trunc", is_flag=True, help="Whole names of images.")
@JSON
def ps(
    everything: bool,
    quiet: bool,
    filters: tuple[str, ...],
    last: int | None,
    latest: bool,
    written: bool,
    no_trunc: bool,
    as_json: bool,
) -> None:
    """List running instances."""
    count = 1 if latest else last or 0
    rows = Client().ps(all=everything, filters=filters, last=count, written=written)
    headers = ["ID", "NAME", "IMAGE", "STATE", "ISOLATION", "SIZE", "PORTS", "CREATED"]
    headers += ["WRITTEN"] * written
    print_rows(rows, headers, lambda row: _row(row, no_trunc), as_json=as_json, quiet=quiet)


def _row(row: dict[str, Any], no_trunc: bool) -> list[str]:
    ports = ", ".join(port_text(port) for port in row["ports"])
    image = row["image"]
    if len(image) > WIDTH and not no_trunc:
        image = f"{image[: WIDTH - 1]}…"
    cells = [row["id"], row["name"], image, state_text(row), row["isolation"], row["size"]]
    cells += [ports, ago(row["created"])]
    return cells + ([format_bytes(row["written"])] if "written" in row else [])


def state_text(row: dict[str, Any]) -> str:
    """The state, and what is known beside it: exit code, or health."""
    state, health = str(row["state"]), row["health"]
    if row.get("pooled"):
        return f"{state} (pooled)"
    budget = row.get("budget")
    if budget and budget["state"] != "fine":
        return f"{state} (budget: {budget['share']:.0%})"
    if state == "stopped" and row["exit_code"] is not None:
        return f"stopped ({row['exit_code']})"
    if state == "running" and health != "none":
        return f"running ({'health: starting' if health == 'starting' else health})"
    return state


def port_text(port: dict[str, Any]) -> str:
    """A published port as `ps` shows it."""
    inner = f"{port['container_port']}/{port['protocol']}"
    if not port["host_port"]:  # its start chooses one
        return inner
    return f"{port['host_ip']}:{port['host_port']}->{inner}"


COMMANDS = {"ps": ps}
