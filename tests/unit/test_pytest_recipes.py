"""The pytest plugin's recipes: the same in each worker of a run, and never one for another."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from sublet.pytest_plugin.recipe import Recipe, recipe


def migrate(service: object, what: str = "") -> None:
    print([service for _ in what])


def closing_over(value: object) -> object:
    return lambda service: print(value)


class Schema:
    def __repr__(self) -> str:
        return "Schema()"

    def migrate(self, service: object) -> None: ...


FIRST, SECOND = (lambda service: 1), (lambda service: 1)

KINDS: list[Recipe] = [
    recipe("postgres:15", None, (), 60.0, {}),
    recipe("postgres:17", None, (), 60.0, {}),
    recipe("postgres:15", None, {"POSTGRES_DB": "a"}, 60.0, {}),
    recipe("postgres:15", None, (), 60.0, {"size": "1x1"}),
    *(
        recipe("postgres:15", prepare, (), 60.0, {})
        for prepare in (
            migrate,
            partial(migrate, what="a"),
            partial(migrate, what="b"),
            closing_over(1),
            closing_over(2),
            FIRST,
            SECOND,
            Schema().migrate,
        )
    ),
]


def test_different_ones_have_different_keys() -> None:
    assert len({each.key for each in KINDS}) == len(KINDS)


def test_the_same_in_another_process() -> None:
    code = "import test_pytest_recipes as t; print(*[each.key for each in t.KINDS])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [each.key for each in KINDS]


def test_timeouts_make_no_difference() -> None:
    assert recipe("a", migrate, (), 1, {}).key == recipe("a", migrate, (), 2, {}).key
