"""`sublet schedule …`: what runs at certain times."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from sublet.cli import run as running
from sublet.cli.commands import ONLY_HELP, with_flags
from sublet.cli.common import JSON, JSON_ALWAYS, each_named, print_found
from sublet.cli.completing import instance_names, schedule_names
from sublet.cli.flags import CREATE
from sublet.cli.output import Progress, dollars, one_line, print_json, print_rows, print_table
from sublet.domain.errors import InvalidArgument, NoSuchSchedule
from sublet.domain.units import format_age, parse_duration
from sublet.sdk import Client

NAME = click.argument("name", metavar="SCHEDULE", shell_complete=schedule_names)
NAMES = click.argument(
    "names", nargs=-1, required=True, metavar="SCHEDULE...", shell_complete=schedule_names
)
OF_RUNS = tuple(f for f in CREATE if f.key not in ("name", "cidfile", "pull", "user_data"))
"""The flags of `run` that make sense for what runs unattended, again and again."""


@click.group()
def schedule() -> None:
    """Run an image, or start an instance, at certain times and for a certain time."""


@schedule.command(context_settings=ONLY_HELP)
@click.argument("name", metavar="NAME")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- IMAGE [COMMAND...]]")
@click.option("--cron", metavar="WHEN", help='"0 2 * * *", @monthly, "every 6h" or "at TIME".')
@click.option("--tz", metavar="ZONE", help="Such as Europe/Berlin; without it, this shell's.")
@click.option("--for", "limit", metavar="TIME", help="Stop a run after this, such as 2h.")
@click.option(
    "--missed",
    type=click.Choice(("run", "skip")),
    default="run",
    show_default=True,
    help="When the host was off: run once, or not.",
)
@click.option(
    "--overlap",
    type=click.Choice(("skip", "queue", "replace")),
    default="skip",
    show_default=True,
    help="When the run before goes on.",
)
@click.option("--jitter", metavar="TIME", help="Put each run off by up to this, such as 10m.")
@click.option(
    "--keep",
    type=int,
    default=3,
    show_default=True,
    metavar="N",
    help="Ended runs whose instances stay, with their logs.",
)
@click.option(
    "--start",
    default="",
    metavar="INSTANCE",
    shell_complete=instance_names,
    help="Start this instance, instead of running an image.",
)
@with_flags(OF_RUNS)
def create(name: str, args: tuple[str, ...], **options: Any) -> None:
    """Make a schedule and print its name. What runs comes last, after `--`; the flags of `run`
    go before."""
    if not options["cron"]:
        raise InvalidArgument("When is it to run?", hint='Give --cron "0 2 * * *".')
    if args and options["start"]:
        raise InvalidArgument("--start and an image exclude each other.", hint="Leave one out.")
    given = {key: options[key] for key in ("missed", "overlap", "keep")}
    given |= {key: parse_duration(options[key]) for key in ("limit", "jitter") if options[key]}
    spec = running.request({**options, "detach": True}, list(args)) if args else None
    with Progress() as progress:
        made = Client().create_schedule(
            name,
            options["cron"],
            spec,
            start=options["start"],
            progress=progress,
            timezone=options["tz"] or local_zone(),
            **given,
        )
    print(made["name"])


def local_zone() -> str:
    """The name of this host's time zone (tzset(3), localtime(5)); UTC where it has none."""
    if zone := os.environ.get("TZ", "").lstrip(":"):
        return zone
    path = os.path.realpath("/etc/localtime")
    _, found, zone = path.partition("/zoneinfo/")
    return zone if found else "UTC"


@schedule.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@JSON
def list_schedules(quiet: bool, as_json: bool) -> None:
    """List schedules; times are those of each one's zone."""
    rows = Client().schedules()
    headers = ("NAME", "WHEN", "ZONE", "NEXT", "LAST", "RUNS")
    print_rows(rows, headers, _row, as_json=as_json, quiet=quiet, key="name")


def _row(row: dict[str, Any]) -> list[str]:
    following = _local(row["next"], row["timezone"]) if row["enabled"] else "paused"
    last = _local(row["last"], row["timezone"])
    if row["last_outcome"]:
        last += f" ({row['last_outcome']})"
    return [row["name"], row["cron"], row["timezone"], following, last, _what(row)]


def _what(row: dict[str, Any]) -> str:
    if row["start"]:
        return f"starts {row['start']}"
    return one_line(" ".join([row["image"], *row["command"]]))[:50]


def _local(moment: str | None, zone: str) -> str:
    """A time in RFC 3339 as a clock in that zone shows it."""
    if not moment:
        return "-"
    return datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


@schedule.command()
@NAME
@JSON
def show(name: str, as_json: bool) -> None:
    """Show a schedule: its rules, its next five times and what became of its runs."""
    row = Client().inspect_schedule(name)
    if as_json:
        print_json(row)
        return
    zone = row["timezone"]
    rules = [
        ("name", row["name"]),
        ("when", f"{row['cron']}, {zone}"),
        ("what", _what(row)),
        ("for", _span(row["limit"]) if row["limit"] else "as long as it takes"),
        ("missed runs", row["missed"]),
        ("overlapping runs", row["overlap"]),
        ("state", "enabled" if row["enabled"] else "paused"),
    ]
    for what, value in rules:
        print(f"{what + ':':<18}{value}")
    print("next:")
    for moment in row["upcoming"] or [None]:
        print(f"  {_local(moment, zone)}")
    if row["history"]:
        print()
        headers = ("RUN", "DUE", "OUTCOME", "EXIT", "LASTED", "COST", "INSTANCE", "WHY")
        print_table(headers, [_history(each, zone) for each in row["history"]])


def _history(run: dict[str, Any], zone: str) -> list[str]:
    return [
        str(run["id"]),
        _local(run["due"], zone),
        run["outcome"],
        "-" if run["exit_code"] is None else str(run["exit_code"]),
        "-" if run["duration"] is None else _span(run["duration"]),
        dollars(run["cost"]),
        run["instance_name"] or "-",
        one_line(run["reason"] or ""),
    ]


def _span(seconds: float) -> str:
    return format_age(seconds) if seconds >= 60 else f"{seconds:.1f} s"


@schedule.command()
@NAMES
@JSON_ALWAYS
def inspect(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of schedules: a JSON object, an array for several."""
    print_found([Client().inspect_schedule(name) for name in names])


@schedule.command("run")
@NAMES
def run_now(names: tuple[str, ...]) -> int:
    """Begin a run now, whatever the time."""
    return each_named(names, lambda name: Client().run_schedule(name))


@schedule.command()
@NAMES
def pause(names: tuple[str, ...]) -> int:
    """Let no run begin until `resume`; one that goes on does so."""
    return each_named(names, Client().pause_schedule)


@schedule.command()
@NAMES
def resume(names: tuple[str, ...]) -> int:
    """Let runs begin again; those of the meantime are not made up for."""
    return each_named(names, Client().resume_schedule)


@schedule.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="End a run that goes on; none there is fine.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Delete schedules, their history and the instances of their runs."""
    client = Client()
    return each_named(
        names,
        lambda name: client.remove_schedule(name, force=force),
        fine=(NoSuchSchedule,) if force else (),
    )


COMMANDS = {"schedule": schedule}
