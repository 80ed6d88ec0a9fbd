"""What all pictures share: where they go, their colours, how amounts are written beside bars.

Drawn by matplotlib, which takes a third of a second to import: only commands that draw do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sublet.cli.output import one_line
from sublet.domain.errors import InvalidArgument

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

CONTAINER, VM, COLD = "#0f766e", "#c2571a", "#e6b08a"
INK, FAINT = "#1f2933", "#7a858f"

THICK = 0.5
"""Of a row, what its bar takes."""


def picture_format(path: str) -> str:
    """`png` or `svg`, by the file's ending. Raises InvalidArgument for others, and where no file
    can be made: before there is anything to draw."""
    ending = os.path.splitext(path)[1].removeprefix(".").lower()
    if ending not in FORMATS:
        raise InvalidArgument(
            f"'{path}' is no name of a picture.", hint="Let it end with .png or .svg."
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InvalidArgument(f"No file can be made in {folder}.", hint="Name another directory.")
    return ending


def figure(width: float, height: float) -> Figure:
    """An empty picture, in inches, of which all goes by itself to its place."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    return Figure(figsize=(width, height), dpi=160, layout=layout, facecolor="white")


def save(drawn: Figure, path: str) -> None:
    """Write the picture into a file, whole or not at all."""
    import matplotlib as mpl

    ending, partial = picture_format(path), f"{path}.partial"
    undated = {"Date": None} if ending == "svg" else {}
    try:
        with mpl.rc_context({"svg.hashsalt": "sublet"}):  # the same picture is the same file
            drawn.savefig(partial, format=ending, metadata=undated)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def literal(text: str, most: int) -> str:
    """Text that others wrote, cut to `most` characters; a `$` would begin a formula."""
    text = one_line(text)
    return (text if len(text) <= most else text[: most - 1] + "…").replace("$", r"\$")


def plain(axes: Axes, title: str, names: Sequence[str], rows: int) -> None:
    """A panel of horizontal bars, with room for `rows` of them: a title, names at the left, and
    nothing else around them."""
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=9)
    axes.tick_params(axis="y", length=0, labelsize=9.5, labelcolor=INK)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def beside(axes: Axes, end: float, row: int, text: str, note: str = "") -> None:
    """What a bar that ends at `end` stands for, to the right of it; below that, small, a note."""
    lines = [(text, 9.5, INK, 6 if note else 0), (note, 7.5, FAINT, -7)]
    for line, size, colour, up in lines if note else lines[:1]:
        axes.annotate(
            line, (end, row), xytext=(5, up), textcoords="offset points",
            va="center", ha="left", fontsize=size, color=colour,
        )  # fmt: skip
