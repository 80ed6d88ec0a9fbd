"""`sublet budget …`: what instances, and all with a label, may cost."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli.common import JSON, each_named
from sublet.cli.completing import instance_names
from sublet.cli.output import dollars, one_line, print_json, print_table
from sublet.domain.errors import NoSuchBudget
from sublet.domain.units import format_dollars
from sublet.sdk import Client

SUBJECT = "INSTANCE|label=KEY=VALUE"


@click.group()
def budget() -> None:
    """What an instance, or all with a label together, may cost in a day, week or month.

    At 80 percent there is a warning, at 100 it is stopped. It starts again when the budget is
    raised, or with the next period; those are of the calendar, in UTC.
    """


@budget.command("set")
@click.argument("subject", metavar=SUBJECT, shell_complete=instance_names)
@click.argument("amount", metavar="AMOUNT/PERIOD")
def set_budget(subject: str, amount: str) -> None:
    """Set a budget in dollars, such as 5/month, 0.50/day or 20/week."""
    found = Client().set_budget(subject, amount)
    print(f"{found['name']}: {used(found)}")


@click.command()
@JSON
def ls(as_json: bool) -> None:
    """List budgets, and how they stand."""
    rows = Client().budgets()
    if as_json:
        print_json(rows)
        return
    headers = ("OF", "BUDGET", "SPENT", "USED", "STATE", "RENEWS", "USED UP AT THIS RATE")
    print_table(headers, [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    budget, spent = f"{format_dollars(row['amount'])}/{row['period']}", dollars(row["spent"])
    times = [_minute(row["renews"]), _minute(row["reaches"])]
    return [one_line(row["name"]), budget, spent, f"{row['share']:.0%}", row["state"], *times]


def _minute(moment: str | None) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC" if moment else "-"


def used(row: dict[str, Any]) -> str:
    """What is spent of it, in words."""
    return f"{dollars(row['spent'])} of {format_dollars(row['amount'])}/{row['period']} spent"


@budget.command()
@click.argument(
    "subjects", metavar=f"{SUBJECT}...", nargs=-1, required=True, shell_complete=instance_names
)
@click.option("-f", "--force", is_flag=True, help="What has none is fine.")
def rm(subjects: tuple[str, ...], force: bool) -> int:
    """Take budgets away."""
    return each_named(subjects, Client().remove_budget, fine=(NoSuchBudget,) if force else ())


budget.add_command(ls)

COMMANDS = {"budget": budget, "budgets": ls}
