"""The picture of `sublet simulate`: what the fleet sold over the day, and at what price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sublet.cli import charts
from sublet.domain.simulated import Sample


def draw(found: dict[str, Any], samples: Sequence[Sample], path: str) -> None:
    """Draw a simulation into the file."""
    drawn = charts.figure(9.6, 5.4)
    drawn.suptitle(
        f"{found['hosts']:,} hosts, {found['requests']:,} requests: "
        f"{found['utilisation']:.0%} of all vCPUs sold, {found['reclaims']:,} reclaims",
        x=0.012, ha="left", fontsize=13, fontweight="bold", color=charts.INK,
    )  # fmt: skip
    sold, price = drawn.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    begin = samples[0].time
    hours = [(sample.time - begin) / 3600 for sample in samples]
    shares = [[s.on_demand * 100 for s in samples], [s.spot * 100 for s in samples]]
    colours = (charts.CONTAINER, charts.COLD)
    sold.stackplot(hours, *shares, labels=("on demand", "spot"), colors=colours)
    sold.set_ylim(0, 100)
    _panel(sold, "vCPUs sold, % of all")
    sold.legend(loc="upper left", frameon=False, fontsize=9, reverse=True)
    price.plot(hours, [s.factor * 100 for s in samples], color=charts.VM, linewidth=1.8)
    price.set_ylim(0, 100)
    _panel(price, "Price of spot, % of on-demand")
    price.set_xlabel("hours", fontsize=9, color=charts.FAINT)
    charts.save(drawn, path)


def _panel(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=charts.INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, labelcolor=charts.INK)
    axes.margins(x=0)
