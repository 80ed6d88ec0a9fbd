"""What the commands print: tables, JSON, progress."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    import threading
    from typing import Any

    from sublet.cli.building import Steps


def print_json(data: Any) -> None:
    """One JSON document on standard output; of control characters, JSON itself lets some pass."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    print(text.translate({number: f"\\u{number:04x}" for number in range(0x7F, 0xA0)}))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns."""
    print("\n".join(table_lines(headers, rows)))


def print_rows(
    rows: Sequence[dict[str, Any]],
    headers: Sequence[str],
    cells: Callable[[dict[str, Any]], Sequence[str]],
    *,
    as_json: bool,
    quiet: bool,
    key: str = "id",
) -> None:
    """A list as JSON, or of each row its `key` alone, or a table with what `cells` makes of it."""
    if as_json:
        print_json(rows)
    elif quiet:
        for row in rows:
            print(row[key])
    else:
        print_table(headers, [cells(row) for row in rows])


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, a line each."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = []
    for row in (headers, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("   ".join(cells).rstrip())
    return lines


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with what would tell a terminal to do something written out; it may have `lines`."""
    if text.isprintable():
        return text
    kept = "\n" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """`text` without what would move the cursor: others wrote it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def dollars(amount: float | None, *, rate: bool = False) -> str:
    """An amount as people read it; small ones to a hundredth of a cent, as a `rate` is always."""
    if amount is None:
        return "-"
    if 0 < abs(amount) < 0.00005:
        return "< $0.0001"
    sign, places = "-" if amount < 0 else "", 2 if abs(amount) >= 1 and not rate else 4
    return f"{sign}${abs(amount):,.{places}f}"


def confirmed(force: bool) -> bool:
    """Whether to go on with what cannot be undone: asked on a terminal only."""
    if force or not sys.stdin.isatty():
        return True
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Progress:
    """Progress on standard error: one line that changes on a terminal, else a line each; of a
    build the steps alone. All that it wrote follows when it fails.

    With `keep`, every line stays, on a terminal too.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._live, self._keep = sys.stderr.isatty() and not keep, keep
        self._shown = False
        self._since = time.monotonic()
        self._timer: threading.Timer | None = None
        self._steps: Steps | None = None

    def __enter__(self) -> Progress:
        return self

    def later(self, seconds: float, line: str) -> None:
        """Show the line unless all is done by then."""
        from threading import Timer  # most commands have no need of it

        self._timer = Timer(seconds, self, [line])
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._timer:
            self._timer.cancel()
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if self._steps and kind and issubclass(kind, Exception):
            for line in self._steps.failed():
                print(line, file=sys.stderr)

    def __call__(self, line: str) -> None:
        shown = line if self._keep else self._step(line)
        if not self._live:
            if shown:
                print(shown, file=sys.stderr, flush=True)
            return
        text = f"{time.monotonic() - self._since:3.0f} s  {line}"
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        sys.stderr.write(f"\r\x1b[K{text[: width - 1]}")
        sys.stderr.flush()
        self._shown = True

    def _step(self, line: str) -> str:
        if not self._steps:
            from sublet.cli.building import Steps  # most commands have nothing to tell

            self._steps = Steps()
        return self._steps.shown(line)
