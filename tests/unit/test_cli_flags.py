"""The hot path's parser agrees with Click's."""

from __future__ import annotations

from typing import Any

import pytest

from sublet.cli import flags, hot


@pytest.mark.parametrize(
    ("args", "values", "rest"),
    [
        (["img"], {}, ["img"]),
        (
            ["-it", "--rm", "img", "-x"],
            {"interactive": True, "tty": True, "rm": True},
            ["img", "-x"],
        ),
        (["-e", "A=1", "--env=B=2", "img"], {"env": ["A=1", "B=2"]}, ["img"]),
        (["-p8080:80", "--name", "n", "img"], {"publish": ["8080:80"], "name": "n"}, ["img"]),
        (["--memory=1g", "--", "img"], {"memory": "1g"}, ["img"]),
        (["-dm", "1g", "img"], {"detach": True, "memory": "1g"}, ["img"]),
        (["--entrypoint", "", "img"], {"entrypoint": ""}, ["img"]),
    ],
)
def test_what_is_right(args: list[str], values: dict[str, Any], rest: list[str]) -> None:
    assert flags.parse(flags.RUN, args) == (values, rest)
    context = hot.run_command.make_context("run", list(args))
    parsed = {key: list(v) if isinstance(v, tuple) else v for key, v in context.params.items()}
    assert {key: parsed[key] for key in values} == values
    assert [parsed["image"], *parsed["command"]] == rest


@pytest.mark.parametrize("args", [["--nope", "img"], ["-z"], ["--rm=1", "img"], ["--name"]])
def test_what_is_not_is_left_to_click(args: list[str]) -> None:
    assert flags.parse(flags.RUN, args) is None


def test_every_flag_has_help() -> None:
    assert all(flag.help.endswith(".") for flag in (*flags.RUN, *flags.EXEC))
