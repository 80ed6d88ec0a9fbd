"""The changes that were tried: kept in a file, told as JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sublet.cli.tried import Changes, print_answer

Make = Callable[[list[dict[str, Any]]], Changes]

ROWS: list[dict[str, Any]] = [
    {"kind": "A", "path": f"/{name}", "size": 1} for name in ("a\nb", "bad\udcff", "é", "c")
]


@pytest.fixture
def changes() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:
        yield lambda rows: stack.enter_context(Changes(iter(rows)))


def test_rows_come_as_often_as_they_are_asked_for(changes: Make) -> None:
    found = changes(ROWS)
    assert (len(found), bool(changes([]))) == (4, False)
    assert next(iter(found)) == ROWS[0]
    assert list(found) == list(found) == ROWS


def test_the_answer_is_one_line_of_json(changes: Make, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"/srv/x": changes(ROWS), "": changes(ROWS[3:]), "/none": changes([])}
    print_answer(3, "/srv/]}", found, {"applied": ["/srv/x/c"], "kept": []})
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert list(told) == ["exit_code", "directory", "changes", "applied", "kept"]
    paths = ["/srv/x/a\nb", "/srv/x/bad\udcff", "/srv/x/é", "/srv/x/c", "/c"]
    assert [row["path"] for row in told["changes"]] == paths
    assert (told["exit_code"], told["directory"]) == (3, "/srv/]}")
    assert (told["applied"], told["kept"]) == (["/srv/x/c"], [])
