"""The picture of `sublet compare`: so many operating systems, against one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sublet.cli import charts
from sublet.domain.comparison import LIMITS, PROMISED
from sublet.domain.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = (("container", "containers", charts.CONTAINER), ("vm", "VMs", charts.VM))
NAMES = [name for _, name, _ in SIDES]
ROOM = 1.5
"""Of a panel's width, so that the text beside the longest bar has some."""


def draw(found: dict[str, Any], path: str) -> None:
    """Draw what a comparison found into the file."""
    drawn = charts.figure(9.6, 5.4)
    count, image = found["count"], charts.literal(found["image"], 40)
    vms = "1 VM has" if count == 1 else f"{count} VMs have"
    drawn.suptitle(
        f"{image}: {_containers(count)} one operating system, {vms} one each",
        x=0.012, ha="left", fontsize=13, fontweight="bold", color=charts.INK,
    )  # fmt: skip
    panels = drawn.subplots(2, 2, height_ratios=[3, 2])
    _starts(panels[0][0], found)
    _holds(panels[0][1], found)
    _amounts(panels[1][0], found, "memory", f"Memory of {count}, as the host counts it")
    _amounts(panels[1][1], found, "disk", f"Disk of {count}")
    drawn.supxlabel(_small_print(found), fontsize=8, color=charts.FAINT, x=0.012, ha="left")
    charts.save(drawn, path)


def _containers(count: int) -> str:
    return "1 container shares" if count == 1 else f"{count} containers share"


def _small_print(found: dict[str, Any]) -> str:
    host = found["host"]
    memory, kind = format_bytes(host["memory"]), host["acceleration"]["kind"]
    command = charts.literal(" ".join(found["command"]) or "the image's own command", 40)
    sold = min(found["vm"]["holds"]["by"][limit] for limit in PROMISED)
    return (
        f"{found['size']} each, of which the host sells {sold:,}: {command}. One block is one"
        f" instance; hatched: there once for all.\n"
        f"Host: {host['cpus']} CPUs, {memory}, VMs by {kind}."
    )


def _starts(axes: Axes, found: dict[str, Any]) -> None:
    container, vm = found["container"], found["vm"]
    rows = [
        ("container", container["start_ms"], charts.CONTAINER),
        ("VM, template", vm["start_ms"], charts.VM),
    ]
    if vm["cold_start_ms"]:
        rows.append(("VM, booted", vm["cold_start_ms"], charts.COLD))
    names, values, colours = zip(*rows, strict=True)
    charts.plain(axes, "Start, until the command runs", names, 3)
    axes.barh(range(len(rows)), values, height=charts.THICK, color=colours)
    axes.set_xlim(0, max(values) * ROOM)
    for row, value in enumerate(values):
        charts.beside(axes, value, row, milliseconds(value))


def _amounts(axes: Axes, found: dict[str, Any], what: str, title: str) -> None:
    """A block for each instance, after what is there once."""
    charts.plain(axes, title, NAMES, 2)
    longest = max(found[side][what]["total"] for side, _, _ in SIDES)
    axes.set_xlim(0, (longest or 1) * ROOM)
    for row, (side, _, colour) in enumerate(SIDES):
        amounts = found[side][what]
        shared, total = amounts["shared"], amounts["total"]
        each = (total - shared) / found["count"]
        _block(axes, row, 0, shared, color="white", edgecolor=colour, hatch="/////", linewidth=0.8)
        for number in range(found["count"]):
            edge = 0.6 if each > longest / 400 else 0.0
            left = shared + number * each
            _block(axes, row, left, each, color=colour, edgecolor="white", linewidth=edge)
        once = f", once {format_bytes(shared)}" if shared else ""
        note = f"each {format_bytes(amounts['each'])}{once}"
        charts.beside(axes, total, row, format_bytes(total), note)


def _block(axes: Axes, row: int, left: float, width: float, **style: Any) -> None:
    axes.barh(row, width, left=left, height=charts.THICK, **style)


def _holds(axes: Axes, found: dict[str, Any]) -> None:
    """What would fit, and in the note what the host would sell of this size."""
    charts.plain(axes, "How many fit on this host", NAMES, 3)
    longest = max(found[side]["holds"]["fits"]["count"] for side, _, _ in SIDES)
    axes.set_xlim(0, (longest or 1) * ROOM)
    for row, (side, _, colour) in enumerate(SIDES):
        holds = found[side]["holds"]
        count = holds["fits"]["count"]
        axes.barh(row, count, height=charts.THICK, color=colour)
        charts.beside(axes, count, row, f"{count:,}", LIMITS[holds["fits"]["limit"]])


def milliseconds(value: float) -> str:
    """A time as people read it: `24 ms`, `2.1 s`."""
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
