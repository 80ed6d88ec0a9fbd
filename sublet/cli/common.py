"""What the commands of all nouns share."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import click

from sublet.cli.output import print_json
from sublet.domain.errors import SubletError
from sublet.domain.units import format_age

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
JSON_ALWAYS = click.option("--json", "as_json", is_flag=True, help="Print JSON, as always.")
FORCE = click.option("-f", "--force", is_flag=True, help="Do not ask.")
PRUNE_FILTERS = "until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]."


def filters(help: str, *names: str) -> Callable[[Any], Any]:
    """The option `--filter`, and further `names` of it (`-f`), as the parameter `filters`."""
    flags = (*names, "--filter", "filters")
    return click.option(*flags, multiple=True, metavar="KEY=VALUE", help=help)


def each(names: Iterable[str], work: Callable[[str], object]) -> int:
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


def each_named(
    names: Iterable[str],
    work: Callable[[str], object],
    *,
    fine: tuple[type[SubletError], ...] = (),
) -> int:
    """As `each`, and print each name when it is done; errors of the kinds `fine` count as done."""

    def named(name: str) -> None:
        with contextlib.suppress(*fine):
            work(name)
        print(name)

    return each(names, named)


def print_found(found: list[dict[str, Any]]) -> None:
    """What `inspect` found: a JSON object, an array for several."""
    print_json(found[0] if len(found) == 1 else found)


def ago(moment: str | None) -> str:
    """A time in RFC 3339 as people read it: `3 hours ago`; `-` where it is none."""
    try:
        then = datetime.fromisoformat(moment or "").timestamp()
    except ValueError:
        return "-"
    return f"{format_age(time.time() - then)} ago"
