"""Commands on the host and the daemon."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

import sublet
from sublet.cli.common import JSON
from sublet.cli.output import print_json, print_table
from sublet.domain.errors import DaemonUnavailable
from sublet.domain.units import format_bytes, format_cpus
from sublet.sdk import Client
from sublet.sdk._launch import socket_path

STOP_DEADLINE = 30.0
FACTS = ("kernel", "architecture", "cgroup", "runtime", "layers", "pool")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def host(context: click.Context, as_json: bool) -> None:
    """Show what this host has, and what of it is sold."""
    if context.invoked_subcommand is None:
        _show_host(as_json)


@host.command()
@click.option("--now", is_flag=True, help="Reclaim spot instances without notice.")
@click.option(
    "--notice", metavar="TIME", help="Length of their notice, such as 10s; without it, the host's."
)
@JSON
def drain(now: bool, notice: str | None, as_json: bool) -> None:
    """Let the host start nothing more, and reclaim all spot instances; print their ids."""
    from sublet.cli.market import print_notices, seconds

    print_notices(Client().drain(notice=seconds(now, notice)), as_json)


@host.command()
def undrain() -> None:
    """Let the host start instances again."""
    Client().undrain()


def _show_host(as_json: bool) -> None:
    data = Client().host()
    if as_json:
        print_json(data)
        return
    amounts = {key: _amount(data[key]) for key in ("rentable", "sold", "spot", "free")}
    shown: dict[str, str] = {
        "cpus": str(data["cpus"]),
        "memory": format_bytes(data["memory"]),
        **amounts,
        **{key: str(data[key]) for key in FACTS},
        "acceleration": "{kind}: {reason}".format(**data["acceleration"]),
    }
    if data["draining"]:
        shown["draining"] = "it starts nothing; `sublet host undrain` ends that"
    if data["pressure"]:
        shown["pressure"] = f"short of {data['pressure']}: it sells no spot"
    width = max(map(len, shown))
    for key, value in shown.items():
        print(f"{key.ljust(width)}  {value}")
    print("\n".join(["", *bars(data)]))


BAR = 50
PARTS = (("on demand", "█"), ("spot", "▒"), ("free", "·"))


def bars(data: dict[str, Any]) -> list[str]:
    """What of the rentable capacity is sold on demand, sold as spot, and free, as bars."""
    rows = [f"{name:6}  {_bar(data, name)}" for name in ("cpus", "memory")]
    legend = "  ".join(f"{sign} {name}" for name, sign in PARTS)
    return [*rows, f"{'':6}  {legend}"]


def _bar(data: dict[str, Any], what: str) -> str:
    total = data["rentable"][what] or 1
    sold, spot = (data[key][what] / total for key in ("sold", "spot"))
    full = max(round(BAR * min(1.0, sold)), int(sold > 0))  # what there is, is seen
    full = min(full, BAR - int(spot > 0))
    shaded = max(round(BAR * min(1.0, sold + spot)) - full, int(spot > 0))
    text = "█" * full + "▒" * shaded + "·" * (BAR - full - shaded)
    return f"{text}  {sold + spot:.0%}"


def _amount(amount: dict[str, Any]) -> str:
    return f"{format_cpus(amount['cpus'])}, {format_bytes(amount['memory'])}"


@click.command()
@click.option("--fix", is_flag=True, help="Remove what is found.")
@JSON
def audit(fix: bool, as_json: bool) -> int:
    """Find what is on this host and belongs to no instance; exit code 1 if there is any."""
    client = Client()
    found = client.audit(fix=fix)
    if as_json:
        print_json(found)
    elif not found:
        print("Nothing is left behind.", file=sys.stderr)
    else:
        rows = [(row["kind"], row["name"], row["owner"] or "-") for row in found]
        print_table(("KIND", "NAME", "OWNER"), rows)
    remaining = client.audit() if fix and found else found
    return int(bool(remaining))


@click.command()
@click.option("--stop", is_flag=True, help="Stop the daemon that runs; instances go on.")
@click.option("--verbose", is_flag=True, help="Log every program that is called.")
def daemon(stop: bool, verbose: bool) -> None:
    """Run the daemon in the foreground. The other commands start it by themselves."""
    if not stop:
        argv = [sys.executable, "-P", "-m", "sublet.daemon", *(["--verbose"] if verbose else [])]
        os.execv(sys.executable, argv)
    client = Client(socket_path())
    try:
        process = os.pidfd_open(client.version()["pid"])
        client.shutdown()
    except (DaemonUnavailable, ProcessLookupError):
        print("No daemon is running.", file=sys.stderr)
        return
    ended, _, _ = select.select([process], [], [], STOP_DEADLINE)
    os.close(process)
    if not ended:
        raise DaemonUnavailable(
            f"The daemon did not end within {STOP_DEADLINE:g} s.", hint="Its log may say why."
        )


@click.command()
@JSON
def version(as_json: bool) -> None:
    """Show the versions of this client and of the daemon."""
    running = Client().version()
    if as_json:
        print_json({"client": sublet.__version__, "daemon": running})
        return
    print(f"client  {sublet.__version__}")
    print(f"daemon  {running['version']}, pid {running['pid']}, root {running['root']}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; `source <(sublet completion bash)` loads it."""
    from sublet.cli.commands import cli

    found = get_completion_class(shell)
    assert found is not None
    print(found(cli, {}, "sublet", "_SUBLET_COMPLETE").source())


COMMANDS = {
    "host": host,
    "audit": audit,
    "daemon": daemon,
    "version": version,
    "completion": completion,
}
