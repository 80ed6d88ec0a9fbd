"""The changes that were tried, which may be a million: in a file, not in memory."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

_MEMORY = 1 << 20
"""Bytes until they go to a file, which has no name."""


class Changes:
    """Rows of `diff`, in order, as often as they are asked for; not by two at a time."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MEMORY, "w+")  # noqa: SIM115
        self._count = 0
        for row in rows:
            self._file.write(f"{json.dumps(row)}\n")
            self._count += 1

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        return map(json.loads, self._file)


def print_answer(
    code: int, directory: str, found: Mapping[str, Changes], done: Mapping[str, Sequence[str]]
) -> None:
    """One JSON object on a line of standard output, row by row; `found` is by what stands before
    the paths, `done` is the end of the object."""
    write = sys.stdout.write
    begin = json.dumps({"exit_code": code, "directory": directory, "changes": []})
    write(begin.removesuffix("]}"))
    between = ""
    for place, rows in found.items():
        for row in rows:
            write(between + json.dumps({**row, "path": f"{place}{row['path']}"}))
            between = ", "
    write(f"], {json.dumps(done).removeprefix('{')}\n")
    sys.stdout.flush()
