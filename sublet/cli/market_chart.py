"""The spot price drawn: with block characters on a terminal, or as a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sublet.cli import charts

BLOCKS = "▁▂▃▄▅▆▇█"
HEIGHT, WIDTH = 6, 60


def check(path: str) -> None:
    """Raises InvalidArgument where no picture can be made at `path`."""
    charts.picture_format(path)


def lines(found: dict[str, Any]) -> list[str]:
    """What spot costs now, and a chart of its history."""
    share, used = found["factor"], found["used"]
    text = [
        f"spot {found['size']}      ${found['price']:.4f} an hour, {share:.1%} of on demand",
        f"on demand {found['size']} ${found['on_demand_price']:.4f} an hour",
        f"sold on demand  {used:.1%} of this host",
    ]
    if found["draining"]:
        text.append("draining: it starts nothing")
    if found["pressure"]:
        text.append(f"short of {found['pressure']}: it sells no spot")
    width = min(WIDTH, os.get_terminal_size().columns - 10) if sys.stdout.isatty() else WIDTH
    return [*text, "", *chart(found, max(10, width))]


def chart(found: dict[str, Any], width: int) -> list[str]:
    """The history as columns of blocks, from 0 to the on-demand price."""
    columns = sampled(found, width)
    if not columns:
        return []
    steps = [round(each * HEIGHT * 8) for each in columns]
    rows = []
    for row in range(HEIGHT - 1, -1, -1):
        label = f"{(row + 1) / HEIGHT:4.0%}" if row % 2 else "    "
        rows.append(f"{label} │{''.join(_block(step - row * 8) for step in steps)}")
    first, last = _labels(found["history"][0]["time"], found["time"])
    rows.append(f"     └{'─' * width}")
    rows.append(f"      {first}{' ' * (width - len(first) - len(last))}{last} UTC")
    return [row.rstrip() for row in rows]


def _labels(first: str, last: str) -> tuple[str, str]:
    """Two times as an axis has them: with their days, where they are not the same."""
    begin = 11 if first[:10] == last[:10] else 5
    return first[begin:16].replace("T", " "), last[begin:16].replace("T", " ")


def _block(level: int) -> str:
    return " " if level <= 0 else BLOCKS[min(level, 8) - 1]


def sampled(found: dict[str, Any], count: int) -> list[float]:
    """The factor at `count` moments of the history, evenly spread, the last one now."""
    times, factors = _history(found)
    if not times:
        return []
    end = seconds(found["time"])
    span = max(end - times[0], 1e-9)
    values, place = [], 0
    for index in range(count):
        moment = times[0] + span * (index + 1) / count
        while place + 1 < len(times) and times[place + 1] <= moment:
            place += 1
        values.append(factors[place])
    return values


def _history(found: dict[str, Any]) -> tuple[list[float], list[float]]:
    rows: Sequence[dict[str, Any]] = found["history"]
    return [seconds(row["time"]) for row in rows], [float(row["factor"]) for row in rows]


def seconds(text: str) -> float:
    """A time in RFC 3339 as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def draw(found: dict[str, Any], path: str) -> None:
    """Draw the history into the file: the price, and the on-demand price above it."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    drawn = charts.figure(9.6, 3.8)
    axes = drawn.subplots()
    history, top = found["history"], found["on_demand_price"]
    texts = [*(row["time"] for row in history), found["time"]]
    number: Callable[[datetime], float] = date2num
    when = [number(datetime.fromisoformat(text)) for text in texts]
    prices = [row["price"] for row in history] + [found["price"]]
    axes.step(when, prices, where="post", color=charts.CONTAINER, linewidth=1.8)
    axes.fill_between(when, prices, step="post", color=charts.CONTAINER, alpha=0.15, linewidth=0)
    axes.axhline(top, color=charts.VM, linewidth=1.2, linestyle="--")
    axes.annotate(
        "on demand", (1, top), xycoords=("axes fraction", "data"), xytext=(-4, -4),
        textcoords="offset points", ha="right", va="top", fontsize=9, color=charts.VM,
    )  # fmt: skip
    axes.set_ylim(0, top * 1.12)
    axes.set_title(
        f"Spot {found['size']}: ${found['price']:.4f} an hour, {found['factor']:.0%} of on demand",
        loc="left", fontsize=12, fontweight="bold", color=charts.INK,
    )  # fmt: skip
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.set_ylabel("dollars per hour", fontsize=9, color=charts.FAINT)
    axes.tick_params(labelsize=9, labelcolor=charts.INK)
    axes.spines[["top", "right"]].set_visible(False)
    charts.save(drawn, path)
