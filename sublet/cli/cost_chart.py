"""The picture of `sublet cost`: what was paid, inside what it would have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sublet.cli import charts
from sublet.cli.billing import AMOUNTS, duration, label
from sublet.cli.output import dollars

MOST = 30
"""Lines that are drawn; the smaller ones beyond are drawn as one."""

FADED = "#d7dfe4"
ROOM = 1.35


def draw(rows: Sequence[dict[str, Any]], by: str, path: str) -> None:
    """Draw a bill into the file."""
    shown = _shown(rows, by)
    drawn = charts.figure(9.6, 1.9 + 0.5 * max(1, len(shown)))
    paid, _, full = (sum(row[key] for row in rows) for key in AMOUNTS)
    share = f", {1 - paid / full:.0%} less than around the clock on demand" if full else ""
    drawn.suptitle(
        charts.literal(f"{dollars(paid)}{share}", 80),
        x=0.012, ha="left", fontsize=13, fontweight="bold", color=charts.INK,
    )  # fmt: skip
    axes = drawn.subplots()
    names = [charts.literal(name, 30) for name, _ in shown]
    charts.plain(axes, f"The bill by {charts.literal(by, 40)}", names, len(shown) or 1)
    axes.set_xlim(0, (max((row[AMOUNTS[2]] for _, row in shown), default=0) or 1) * ROOM)
    colours = (charts.CONTAINER, charts.COLD, FADED)
    for index, (_, row) in enumerate(shown):
        for key, colour in reversed(list(zip(AMOUNTS, colours, strict=True))):
            axes.barh(index, row[key], height=charts.THICK, color=colour)
        note = f"{duration(row['seconds'])}, on demand {dollars(row[AMOUNTS[1]])}"
        end = max(row[key] for key in AMOUNTS)
        text = [charts.literal(each, 60) for each in (dollars(row["amount"]), note)]
        charts.beside(axes, end, index, *text)
    legend = "Green: paid. Orange: the same use on demand. Grey: on demand, never stopped."
    drawn.supxlabel(legend, fontsize=8, color=charts.FAINT, x=0.012, ha="left")
    charts.save(drawn, path)


def _shown(rows: Sequence[dict[str, Any]], by: str) -> list[tuple[str, dict[str, Any]]]:
    """The lines with their names; the last one sums up what is too much for a picture."""
    found = [(" ".join(label(row, by)), row) for row in rows]
    if len(found) <= MOST:
        return found
    if by != "day":
        found.sort(key=lambda each: -float(each[1]["amount"]))
    first, rest = found[: MOST - 1], found[MOST - 1 :]
    sums = {key: sum(row[key] for _, row in rest) for key in (*AMOUNTS, "seconds")}
    return [*first, (f"{len(rest)} others", sums)]
