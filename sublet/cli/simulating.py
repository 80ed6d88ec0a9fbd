"""`sublet simulate`: what a market would do on hosts that are not there."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import click

from sublet.cli.common import JSON
from sublet.cli.output import Progress, print_json
from sublet.domain import traces
from sublet.domain.capacity import Amount
from sublet.domain.errors import InvalidArgument
from sublet.domain.simulated import Event, Sample
from sublet.domain.size import Size
from sublet.domain.spec import Market
from sublet.domain.units import parse_duration

ONE, MANY = "896x1200", "16x64"
"""The host of `--request`, and that of a fleet, where none is given."""

EACH = 10
"""Made-up requests for each host."""


@click.command()
@click.option("--host", metavar="CPUSxGIB", help=f"Size of a host; {ONE}, in a fleet {MANY}.")
@click.option("--hosts", type=int, metavar="N", help="So many of them; 1 without it.")
@click.option("--request", "asked", metavar="CPUSxGIB", help="Ask for this, --count times.")
@click.option("--count", type=int, metavar="N", help="Number of requests.")
@click.option("--spot", is_flag=True, help="With --request: ask for spot.")
@click.option("--trace", metavar="FILE", help="Replay a CSV file, or `synthetic`: a day made up.")
@click.option(
    "--seed", default=1, show_default=True, metavar="N", help="Another one makes up another day."
)
@click.option(
    "--overcommit", default=1.0, show_default=True, metavar="N", help="Sell each vCPU so often."
)
@click.option(
    "--notice", default="120s", show_default=True, metavar="TIME", help="Before a reclaim."
)
@click.option("--out", default="", metavar="FILE", help="Draw it into a file, .png or .svg.")
@JSON
def simulate(
    host: str | None,
    hosts: int | None,
    asked: str | None,
    count: int | None,
    spot: bool,
    trace: str | None,
    seed: int,
    overcommit: float,
    notice: str,
    out: str,
    as_json: bool,
) -> None:
    """Place requests on an imagined host, or replay a day over an imagined fleet.

    Placement, price and reclaims are decided as on a real host. A trace has the columns time,
    action (start, stop), id, size, market (on-demand, spot).
    """
    from sublet.sdk.simulating import simulate as replay

    _check(asked, trace, count, out)
    each, number = Size.parse(host or (ONE if asked else MANY)), 1 if hosts is None else hosts
    with ExitStack() as stack:
        events: Iterable[Event]
        if asked:
            market = Market.SPOT if spot else Market.ON_DEMAND
            events = traces.same(Size.parse(asked), 1 if count is None else count, market)
        elif trace == "synthetic":
            total = Amount(number * each.cpus * overcommit, number * each.memory)
            events = traces.synthetic(total, count or EACH * number, random.Random(seed))
        else:
            events = traces.read(stack.enter_context(_opened(trace or "")))
        found, samples = replay(
            each,
            events,
            hosts=number,
            overcommit=overcommit,
            notice=parse_duration(notice),
            progress=stack.enter_context(Progress()),
        )
    _show(found, samples, out, as_json)


def _check(asked: str | None, trace: str | None, count: int | None, out: str) -> None:
    """Raises InvalidArgument where it is not said what is asked for, or it cannot be drawn."""
    if bool(asked) == bool(trace):
        raise InvalidArgument(
            "What is asked for?", hint="Give --request 2x2 --count 448, or --trace synthetic."
        )
    if out:
        from sublet.cli.charts import picture_format

        picture_format(out)
    if count is not None and count < 1:
        raise InvalidArgument(f"{count} requests are none.", hint="Give --count 100.")


def _show(found: dict[str, Any], samples: Sequence[Sample], out: str, as_json: bool) -> None:
    """The report, and the picture if one was asked for."""
    if out:
        from sublet.cli.simulation_chart import draw

        draw(found, samples, out)
    if as_json:
        print_json(found)
    else:
        for what, value in rows(found):
            print(f"{what + ':':<22}{value}")


def _opened(path: str) -> Any:
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InvalidArgument(
            f"The trace '{path}' cannot be read: {error.strerror}.",
            hint="Name a CSV file, or `synthetic`.",
        ) from error


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What is shown of a report."""
    hosts = f"{found['hosts']:,} host{'' if found['hosts'] == 1 else 's'}"
    money = ", ".join(f"{market} ${amount:,.2f}" for market, amount in found["revenue"].items())
    return [
        ("placed", f"{found['placed']:,} of {found['requests']:,} requests, on {hosts}"),
        ("refused", f"{found['refused']:,}"),
        ("reclaims", f"{found['reclaims']:,}"),
        ("utilisation", f"{found['utilisation']:.1%} of all vCPUs"),
        ("revenue", money),
        ("time", f"{found['seconds']:.2f} s, {found['decision_us']:.1f} µs a decision"),
        ("placements a second", f"{found['placements_per_second']:,}"),
    ]


COMMANDS = {"simulate": simulate}
