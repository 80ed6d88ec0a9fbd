"""Where each millisecond of `sublet run --rm IMAGE true` goes, drawn from a real trace.

    python -m bench.trace [--vm] [--rounds N] [--image FILE] [--out docs/assets/start.svg]

With --vm, of a virtual machine that goes on from its template (`run --rm --vm`).

The median of all rounds: every step begins and ends at its own median. Prints the table that
docs/performance.md explains.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.engines import IMAGE
from bench.host import call
from bench.lab import Lab

CLIENT, WIDTH, LEFT, BAR, GAP = "sublet run", 960, 96, 26, 6
COLOURS = ("#2f6f9f", "#4f9f7f", "#9f7f2f", "#8f5f9f", "#bf6f4f", "#5f7f2f", "#3f8f9f", "#9f4f6f")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a request, in milliseconds since the command was started."""

    request: str
    name: str
    begin: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.begin


def one_round(lab: Lab, trace: Path, flags: tuple[str, ...]) -> tuple[float, list[Step]]:
    """Run the command once: how long it took as its caller sees it, and its steps."""
    seen = trace.stat().st_size if trace.exists() else 0
    begin = time.monotonic() * 1000
    call(*lab.sublet.argv, "run", "--rm", *flags, IMAGE, "true", env=lab.sublet.env)
    total = time.monotonic() * 1000 - begin
    with trace.open() as file:
        file.seek(seen)
        requests = [json.loads(line) for line in file]
    return total, [step for request in requests for step in _steps(request, begin)]


def _steps(request: dict[str, Any], zero: float) -> list[Step]:
    name = request["request"]
    whole = Step(name, "", request["begin"] - zero, request["end"] - zero)
    return [
        whole,
        *(Step(name, s["name"], s["begin"] - zero, s["end"] - zero) for s in request["steps"]),
    ]


def medians(rounds: list[list[Step]]) -> list[Step]:
    """The steps that every round has, each at its median place; in order of their beginning."""
    found: dict[tuple[str, str], list[Step]] = {}
    for steps in rounds:
        for step in steps:
            found.setdefault((step.request, step.name), []).append(step)
    middle = [
        Step(request, name, median(s.begin for s in steps), median(s.end for s in steps))
        for (request, name), steps in found.items()
        if len(steps) >= len(rounds)
    ]
    return sorted(middle, key=lambda step: (step.begin, -step.end))


def lanes(steps: list[Step]) -> list[tuple[int, Step]]:
    """A row for each step: the client's first, then the requests, then what they are made of;
    what runs inside or beside another one is a row below it."""
    rows: dict[int, list[Step]] = {}
    placed = []
    for step in sorted(steps, key=lambda step: (_floor(step), step.begin, -step.end)):
        if step.request == CLIENT and not step.name:
            continue
        row = _floor(step)
        while _meets(step, rows.setdefault(row, [])):
            row += 1
        rows[row].append(step)
        placed.append((row, step))
    return placed


def _floor(step: Step) -> int:
    if step.request == CLIENT:
        return 0
    return 2 if step.name else 1


def _meets(step: Step, others: list[Step]) -> bool:
    return any(step.begin < other.end - 0.05 and other.begin < step.end - 0.05 for other in others)


def draw(steps: list[Step], total: float, rounds: int, flags: tuple[str, ...]) -> str:
    """The picture as SVG: time to the right, a row for each depth."""
    placed = lanes(steps)
    scale = (WIDTH - LEFT - 8) / total
    bottom = 40 + (1 + max(row for row, _ in placed)) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 30}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{bottom + 30}" fill="#fff"/>',
        f'<text x="8" y="18" font-size="13">sublet {_command(flags)}: {total:.0f} ms, '
        f"the median of {rounds}</text>",
        *_axis(total, scale, bottom),
        *(_label(row, text) for row, text in ((0, "client"), (1, "daemon"), (2, "its steps"))),
    ]
    for number, (row, step) in enumerate(placed):
        parts.append(_bar(step, row, scale, COLOURS[number % len(COLOURS)]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _command(flags: tuple[str, ...]) -> str:
    return " ".join(("run", "--rm", *flags, IMAGE, "true"))


def _top(row: int) -> int:
    return 30 + row * (BAR + GAP)


def _label(row: int, text: str) -> str:
    return f'<text x="8" y="{_top(row) + 17}" fill="#444">{text}</text>'


def _axis(total: float, scale: float, bottom: int) -> list[str]:
    pace = next((ms for ms in (5, 10, 20, 50, 100) if total < 13 * ms), 200)
    found = []
    for tick in range(0, int(total) + 1, pace):
        x = LEFT + tick * scale
        found.append(f'<path d="M{x:.1f} 28V{bottom}" stroke="#ddd"/>')
        found.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick} ms</text>')
    return found


def _bar(step: Step, row: int, scale: float, colour: str) -> str:
    """A bar, with its name where that fits, and always as its title."""
    x, width = LEFT + step.begin * scale, max(1.0, step.length * scale)
    name = step.name or step.request
    text = f"{name} {step.length:.1f}"
    inside = ""
    if width > 6.2 * len(text):
        inside = f'<text x="{x + 4:.1f}" y="{_top(row) + 17}" fill="#fff">{text}</text>'
    elif width > 6.2 * len(name):
        inside = f'<text x="{x + 4:.1f}" y="{_top(row) + 17}" fill="#fff">{name}</text>'
    return (
        f'<g><title>{step.request}: {text} ms</title><rect x="{x:.1f}" y="{_top(row)}" '
        f'width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>{inside}</g>'
    )


def table(steps: list[Step], total: float) -> str:
    """The steps as the documentation shows them."""
    lines = ["| request | step | begins at | takes |", "| --- | --- | --- | --- |"]
    for step in steps:
        name = step.name or "(all of it)"
        lines.append(f"| {step.request} | {name} | {step.begin:.1f} ms | {step.length:.1f} ms |")
    return "\n".join([*lines, f"| | as its caller sees it | 0.0 ms | {total:.1f} ms |"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.trace", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--image", type=Path, help=f"a packed file, instead of {IMAGE}")
    parser.add_argument("--vm", action="store_true", help="a virtual machine, not a container")
    parser.add_argument("--out", type=Path, help="default: docs/assets/start.svg, start-vm.svg")
    options = parser.parse_args()
    flags = ("--vm",) if options.vm else ()
    out = options.out or Path("docs/assets", "start-vm.svg" if options.vm else "start.svg")
    os.environ["SUBLET_TRACE"] = "1"
    lab = Lab(options.rounds, options.image)
    try:
        trace = lab.work / "sublet" / "run" / "trace.jsonl"
        measured = [one_round(lab, trace, flags) for _ in range(options.rounds + 3)][3:]
    finally:
        lab.close()
    total = median(total for total, _ in measured)
    steps = medians([steps for _, steps in measured])
    out.write_text(draw(steps, total, options.rounds, flags))
    print(table(steps, total))
    return 0


if __name__ == "__main__":
    sys.exit(main())
