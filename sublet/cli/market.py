"""Commands on the market: sizes, the price, spot requests, reclaims."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli.common import JSON, JSON_ALWAYS, ago, each_named, print_found
from sublet.cli.completing import instance_names, request_ids
from sublet.cli.instances import NAME
from sublet.cli.output import Progress, dollars, print_json, print_table
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import format_bytes, parse_duration
from sublet.sdk import Client

REQUESTS = click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="REQUEST|INSTANCE...",
    shell_complete=request_ids,
)
NOW = click.option("--now", is_flag=True, help="Without notice.")
NOTICE = click.option(
    "--notice", metavar="TIME", help="Length of the notice, such as 10s; without it, the host's."
)


@click.command()
@JSON
def sizes(as_json: bool) -> None:
    """List the sizes that have names: `run --size NAME`; prices are dollars per hour."""
    rows = Client().sizes()
    if as_json:
        print_json(rows)
        return
    headers = ("NAME", "SIZE", "VCPUS", "MEMORY", "ON DEMAND", "SPOT NOW")
    print_table(headers, [_size(row) for row in rows])


def _size(row: dict[str, Any]) -> list[str]:
    amounts = [f"{row['cpus']:g}", format_bytes(row["memory"])]
    prices = [dollars(row[key], rate=True) for key in ("price", "spot_price")]
    return [row["name"], row["size"], *amounts, *prices]


@click.command()
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How far back, such as 30m or 7d.",
)
@click.option(
    "--size", default="1x1", show_default=True, metavar="SIZE", help="Price of this size."
)
@click.option("--out", default="", metavar="FILE", help="Draw a picture: .png or .svg.")
@JSON
def market(since: str, size: str, out: str, as_json: bool) -> None:
    """Show what spot costs now, and what it did cost.

    The price follows the share of the host that is sold on demand, slowly: 20 % of the
    on-demand price on an empty host, all of it on a full one.
    """
    from sublet.cli import market_chart

    if out:
        market_chart.check(out)
    found = Client().market(since=since, size=size)
    if out:
        market_chart.draw(found, out)
    if as_json:
        print_json(found)
    else:
        print("\n".join(market_chart.lines(found)))


@click.group()
def spot() -> None:
    """Spot requests: what was asked for with `run --spot`, and where it stands."""


@spot.command()
@JSON
def ls(as_json: bool) -> None:
    """List spot requests, those that ended in the last two days too."""
    rows = Client().spot_requests()
    if as_json:
        print_json(rows)
        return
    headers = ("ID", "INSTANCE", "NAME", "TYPE", "STATE", "STATUS", "MAX PRICE", "UPDATED")
    print_table(headers, [_request(row) for row in rows])


def _request(row: dict[str, Any]) -> list[str]:
    texts = [str(row[key]) for key in ("id", "instance", "name", "type", "state", "status")]
    return [*texts, dollars(row["max_price"], rate=True), ago(row["updated"])]


@spot.command()
@REQUESTS
@JSON_ALWAYS
def show(names: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of a spot request: a JSON object, an array for several."""
    print_found([Client().spot_request(name) for name in names])


@spot.command()
@REQUESTS
def cancel(names: tuple[str, ...]) -> int:
    """Cancel spot requests. Their instances go on; they do not come back once reclaimed."""
    return each_named(names, Client().cancel_spot_request)


@click.command()
@click.argument("names", nargs=-1, metavar="[INSTANCE...]", shell_complete=instance_names)
@click.option("-a", "--all", "everything", is_flag=True, help="All spot instances.")
@NOW
@NOTICE
@JSON
def reclaim(
    names: tuple[str, ...], everything: bool, now: bool, notice: str | None, as_json: bool
) -> None:
    """Take the capacity of spot instances back, after their notice; print their ids."""
    if bool(names) == everything:
        raise InvalidArgument("Name spot instances, or say --all.", hint="sublet reclaim --all")
    given = Client().reclaim(names, all=everything, notice=seconds(now, notice))
    print_notices(given, as_json)


def seconds(now: bool, notice: str | None) -> float | None:
    """What the two flags say of the notice's length. Raises InvalidArgument."""
    if now and notice:
        raise InvalidArgument("--now and --notice exclude each other.", hint="Leave one out.")
    if now:
        return 0.0
    return None if notice is None else parse_duration(notice)


def print_notices(rows: list[dict[str, Any]], as_json: bool) -> None:
    """The notices that were given: ids on standard output, what follows beside."""
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(row["id"])
        click.echo(f"sublet: {row['name']}: {row['action']} at {row['time']}", err=True)


@click.command()
@NAME
@click.option(
    "--notice",
    default="",
    metavar="TIME",
    help="Length of the notice, such as 10s; without it, the host's.",
)
@JSON
def rehearse(name: str, notice: str, as_json: bool) -> None:
    """Give an instance notice that nothing comes of, and report what it did: whether it reacted,
    what its command said, whether its backup was complete, what would be lost."""
    with Progress(keep=True) as progress:
        found = Client().rehearse(name, notice=notice, progress=progress)
    lines = found.pop("report")
    if as_json:
        print_json(found)
    else:
        print("\n".join(lines))


COMMANDS = {
    "sizes": sizes,
    "market": market,
    "spot": spot,
    "reclaim": reclaim,
    "rehearse": rehearse,
}
