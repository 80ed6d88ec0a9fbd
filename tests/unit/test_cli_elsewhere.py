"""What other engines have and Sublet does not gets an answer that says what to do instead."""

from __future__ import annotations

import pytest

from sublet.cli import elsewhere, flags
from sublet.cli.commands import COMMANDS, invoke
from sublet.domain.errors import InvalidArgument


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "--privileged", "img"], "--cap-add"),
        (["container", "run", "--privileged", "img"], "--cap-add"),
        (["create", "-P", "img"], "-p 80"),
        (["run", "--platform", "linux/arm64", "img"], "architecture"),
        (["exec", "-d", "web", "true"], "sh -c"),
        (["ps", "--format", "{{.Names}}"], "`sublet ps --json |"),
        (["image", "ls", "--format", "x"], "`sublet image ls --json |"),
        (["inspect", "-f", "{{.State}}", "web"], "jq -r .state"),
        (["stop", "-s", "KILL", "web"], "kill -s"),
        (["save", "web:1"], "pack"),
        (["load", "-i", "x.tar"], "import"),
    ],
)
def test_the_answer_says_what_to_do(args: list[str], says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        invoke(args)
    assert says in caught.value.hint


def test_what_is_unknown_everywhere_is_left_to_click(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--nonsense", "img"]) == 125
    assert invoke(["nonsense"]) == 1
    assert "No such command 'nonsense'" in capsys.readouterr().err


def test_nothing_that_is_here_is_said_to_be_missing() -> None:
    own = {name for flag in (*flags.RUN, *flags.CREATE) for name in flag.names}
    assert not own & set(elsewhere.LAUNCH)
    assert not set(COMMANDS) & set(elsewhere.VERBS)


def test_minus_h_is_the_host_name() -> None:
    assert flags.parse(flags.RUN, ["-h", "box", "img"]) == ({"hostname": "box"}, ["img"])
