"""`sublet cost`: the bill, and what a month would cost."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from sublet.cli.common import JSON
from sublet.cli.completing import instance_names
from sublet.cli.output import dollars, one_line, print_json, print_table
from sublet.domain.errors import InvalidArgument
from sublet.sdk import Client

KINDS = ("instance", "day", "market", "label=")
"""What a bill is made by; a label's key follows."""

AMOUNTS = ("amount", "on_demand_amount", "around_the_clock_amount")


def kinds(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Completes what a bill is made by."""
    return [kind for kind in KINDS if kind.startswith(typed)]


class OfOne(click.Group):
    """A group whose first word, if it is none of its commands, is the instance that is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["--instance", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its commands, options and the instances there are."""
        names = [CompletionItem(name) for name in instance_names(ctx, self.params[0], incomplete)]
        return [*super().shell_complete(ctx, incomplete), *names]


@click.group(cls=OfOne, invoke_without_command=True)
@click.option(
    "--instance",
    default="",
    metavar="INSTANCE",
    shell_complete=instance_names,
    help="Of this one alone, by name or id; deleted ones, too. Short: `sublet cost INSTANCE`.",
)
@click.option(
    "--by",
    default="instance",
    metavar="WHAT",
    shell_complete=kinds,
    help="A line for each instance (as without it), day, market or label=KEY.",
)
@click.option(
    "--since", default="", metavar="TIME", help="From 2026-11-01, an RFC 3339 time, or 30d ago."
)
@click.option("--until", default="", metavar="TIME", help="Up to such a time; now without it.")
@click.option("--tz", default="UTC", metavar="ZONE", help="Time zone of days; UTC without it.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--out", "--png", "out", default="", metavar="FILE", help="Draw it: .png or .svg.")
@click.option("--ec2", is_flag=True, help="Show what the same use would cost on EC2.")
@JSON
@click.pass_context
def cost(
    context: click.Context,
    instance: str,
    by: str,
    since: str,
    until: str,
    tz: str,
    as_csv: bool,
    out: str,
    ec2: bool,
    as_json: bool,
) -> None:
    """Show what instances have cost, and what was saved.

    Every second that an instance runs, or is paused, is charged, 60 seconds at least for each
    start. What is deleted stays on the bill; what runs counts up to now.
    """
    if context.invoked_subcommand:
        return
    if as_csv and as_json:
        raise InvalidArgument("The bill is printed as CSV or as JSON.", hint="Leave one out.")
    if out:
        from sublet.cli.charts import picture_format

        picture_format(out)
    rows = Client().cost(by=by, since=since, until=until, tz=tz, instance=instance)
    if out:
        from sublet.cli.cost_chart import draw

        draw(rows, by, out)
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    elif instance and not rows:
        raise InvalidArgument(
            f"Nothing has been charged to '{instance}'.",
            hint="`sublet cost` has a line for each instance that ever ran.",
        )
    else:
        print_bill(rows, by, ec2)


def print_csv(rows: Sequence[dict[str, Any]]) -> None:
    """The bill for a spreadsheet: a header, and a line each."""
    from sublet.domain.bill import KEYS

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(KEYS)
    for row in rows:
        writer.writerow(["" if row[key] is None else _harmless(row[key]) for key in KEYS])


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def print_bill(rows: Sequence[dict[str, Any]], by: str, ec2: bool) -> None:
    """The bill for people: a line each, the sum, and what was saved."""
    if not rows:
        print("Nothing has been charged.")
        return
    sums: dict[str, Any] = {key: sum(row[key] for row in rows) for key in (*AMOUNTS, "seconds")}
    known = all(row["ec2_amount"] is not None for row in rows)
    sums["ec2_amount"] = sum(row["ec2_amount"] for row in rows) if known else None
    head = ["INSTANCE", "MARKET"] if by == "instance" else [by.partition("=")[2] or by.upper()]
    end = ["total", ""] if by == "instance" else ["total"]
    headers = [*head, "CHARGED", "COST", "ON DEMAND", "AROUND THE CLOCK", *["ON EC2"] * ec2]
    lines = [[*label(row, by), *_cells(row, ec2)] for row in rows]
    print_table(headers, [*lines, [*end, *_cells(sums, ec2)]])
    print(saved(sums))


def label(row: dict[str, Any], by: str) -> list[str]:
    """What a line is about."""
    if by == "instance":
        return [one_line(row["name"]), row["market"]]
    if by.startswith("label"):
        return [one_line(row["label"]) or "-"]
    return [row[by]]


def _cells(row: dict[str, Any], ec2: bool) -> list[str]:
    elsewhere = [row["ec2_amount"]] if ec2 else []
    amounts = [*(row[key] for key in AMOUNTS), *elsewhere]
    return [duration(row["seconds"]), *map(dollars, amounts)]


def saved(sums: dict[str, Any]) -> str:
    """What was saved, in a sentence."""
    paid, full = sums["amount"], sums["around_the_clock_amount"]
    text = f"Saved {dollars(full - paid)}"
    share = f", {(full - paid) / full:.0%}" if full > 0 else ""
    return f"{text}{share}, against on-demand instances that are never stopped."


def duration(seconds: float) -> str:
    """Time that was charged, in hours, minutes and seconds: `0:05:52`, `1,024:00:00`."""
    whole = round(seconds)
    return f"{whole // 3600:,}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@cost.command("what-if")
@click.option(
    "--size", required=True, metavar="SIZE", help="Such as 2x8, or one of `sublet sizes`."
)
@click.option(
    "--hours", default=24.0, show_default=True, metavar="N", help="Used so many hours a day."
)
@click.option(
    "--days", default=31.0, show_default=True, metavar="N", help="On so many days of a month."
)
@click.option("--spot", is_flag=True, help="As a spot instance.")
@click.option("--ec2", is_flag=True, help="At EC2's prices, not at this host's.")
@JSON
def what_if(size: str, hours: float, days: float, spot: bool, ec2: bool, as_json: bool) -> None:
    """Show what a size would cost in a month of 730 hours: around the clock, or only when it is
    used; on demand, or spot. What you asked about is marked."""
    found = Client().what_if(size, hours=hours, days=days, spot=spot, ec2=ec2)
    rows = found["scenarios"]
    if as_json:
        print_json([{**row, "prices": found["prices"]} for row in rows])
        return
    table = []
    for row in rows:
        saving = row["saving"]
        share = "" if not saving else f" ({saving / rows[0]['amount']:.0%})"
        cells = [f"{row['hours']:g}", dollars(row["price"]), dollars(row["amount"])]
        mark = " <" if row["chosen"] else ""
        table.append([row["scenario"], *cells, f"{dollars(saving or None)}{share}{mark}"])
    print_table(("SCENARIO", "HOURS", "PRICE/H", "AMOUNT", "SAVED"), table)
    print(f"Prices: {found['prices']}.")


COMMANDS = {"cost": cost}
