"""Commands that show what instances do: logs, processes, statistics, events, ports."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from sublet.cli.common import JSON, filters
from sublet.cli.completing import instance_names
from sublet.cli.instances import NAME
from sublet.cli.output import one_line, print_json, print_table, table_lines
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import format_bytes
from sublet.sdk import Client

SINCE = click.option("--since", metavar="TIME", default="", help="From then on, or of this age.")
UNTIL = click.option("--until", metavar="TIME", default="", help="Until then, or up to this age.")


@click.command()
@NAME
@click.option("-f", "--follow", is_flag=True, help="Go on until the instance ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("-n", "--tail", metavar="N", default="all", help="The last N lines of what is there.")
@SINCE
@UNTIL
def logs(name: str, follow: bool, timestamps: bool, tail: str, since: str, until: str) -> None:
    """Show what an instance wrote to standard output and standard error.

    Times are RFC 3339, seconds since the epoch, or an age such as 10m.
    """
    if tail != "all" and not tail.isdecimal():
        raise InvalidArgument(f"--tail cannot be '{tail}'.", hint="Write a number, or all.")
    count = None if tail == "all" else int(tail)
    lines = Client().logs(name, follow=follow, since=since, until=until, tail=count)
    for line in lines:
        stamp = f"{line['time']} " if timestamps else ""
        data = (stamp + line["data"]).encode(errors="surrogateescape")
        stream = sys.stderr.buffer if line["stream"] == 2 else sys.stdout.buffer
        stream.write(data)
        stream.flush()


@click.command()
@NAME
@JSON
def top(name: str, as_json: bool) -> None:
    """List the processes of a running instance."""
    rows = Client().top(name)
    if as_json:
        print_json(rows)
        return
    headers = ("USER", "PID", "HOST PID", "PARENT", "STATE", "CPU TIME", "MEMORY", "COMMAND")
    print_table(headers, [_process(row) for row in rows])


def _process(row: dict[str, Any]) -> list[str]:
    minutes, seconds = divmod(row["cpu"], 60)
    numbers = [str(row[key]) for key in ("pid", "host_pid", "parent", "state")]
    time, memory = f"{minutes:.0f}:{seconds:05.2f}", format_bytes(row["memory"])
    return [one_line(row["user"]), *numbers, time, memory, one_line(row["command"])]


@click.command()
@click.argument("names", nargs=-1, metavar="[INSTANCE...]", shell_complete=instance_names)
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped instances too.")
@click.option("--no-stream", is_flag=True, help="Once.")
@JSON
def stats(names: tuple[str, ...], everything: bool, no_stream: bool, as_json: bool) -> None:
    """Show what instances use, each second: CPU, memory, network, disk, processes.

    100 % of CPU is one whole CPU. Memory is without the page cache that can be dropped at once.
    With --json, an array; without --no-stream too, an array a line.
    """
    live = sys.stdout.isatty() and not no_stream and not as_json
    for rows in Client().stats(names, all=everything, stream=not no_stream):
        if as_json and no_stream:
            print_json(rows)
        elif as_json:
            print(json.dumps(rows), flush=True)
        else:
            _show(table_lines(STATS, [_use(row) for row in rows]), live)


STATS = ("ID", "NAME", "CPU", "MEMORY / LIMIT", "MEMORY %", "NET IN / OUT", "DISK IN / OUT", "PIDS")


def _use(row: dict[str, Any]) -> list[str]:
    sizes = {key: format_bytes(value) for key, value in row.items() if isinstance(value, int)}
    return [
        row["id"],
        row["name"],
        f"{row['cpu_percent']:.2f}%",
        f"{sizes['memory']} / {sizes['memory_limit']}",
        f"{row['memory_percent']:.2f}%",
        f"{sizes['network_received']} / {sizes['network_sent']}",
        f"{sizes['block_read']} / {sizes['block_written']}",
        str(row["pids"]),
    ]


def _show(lines: Sequence[str], live: bool) -> None:
    """Print a table; on a terminal in place of the one before (ECMA-48: CUP, EL, ED)."""
    if not live:
        print("\n".join(lines), flush=True)
        return
    width, height = shutil.get_terminal_size()
    shown = [line[:width] for line in lines[: height - 1]]
    print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J", end="", flush=True)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@filters("type, event, instance, image, label.")
@SINCE
@UNTIL
@JSON
def events(follow: bool, filters: tuple[str, ...], since: str, until: str, as_json: bool) -> None:
    """Show what happened. Times are RFC 3339, seconds since the epoch, or an age such as 10m.

    With --json, an array; with -f too, an object a line.
    """
    rows = Client().events(follow=follow, filters=filters, since=since, until=until)
    if as_json and not follow:
        print_json(list(rows))
        return
    for row in rows:
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        detail = " ".join(f"{key}={value}" for key, value in row["detail"].items())
        text = one_line(f"{row['time']}  {row['type']}  {row['instance']}  {detail}")
        print(text, flush=True)


@click.command()
@NAME
@click.argument("port", required=False, metavar="[PORT[/PROTOCOL]]")
@JSON
def port(name: str, port: str | None, as_json: bool) -> None:
    """Show where the ports of an instance are published, or one of them."""
    rows = Client().inspect(name)["ports"]
    if port is None:
        if as_json:
            print_json(rows)
            return
        for row in rows:
            print(f"{row['container_port']}/{row['protocol']} -> {_outside(row)}")
        return
    number, _, protocol = port.partition("/")
    wanted = (number, protocol or "tcp")
    found = [row for row in rows if (str(row["container_port"]), row["protocol"]) == wanted]
    if not found:
        raise InvalidArgument(
            f"{name} publishes no port {'/'.join(wanted)}.",
            hint=f"`sublet port {name}` lists those that it does.",
        )
    if as_json:
        print_json(found)
        return
    for row in found:
        print(_outside(row))


def _outside(row: dict[str, Any]) -> str:
    return f"{row['host_ip']}:{row['host_port']}"


COMMANDS = {"logs": logs, "top": top, "stats": stats, "events": events, "port": port}
