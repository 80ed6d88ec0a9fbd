"""What is printed of texts that a stranger may have written."""

from __future__ import annotations

import json

import pytest

from sublet.cli import main, output
from sublet.domain.errors import CopyFailed

HOSTILE = "a\x1b[2Jb\x9b1mc\x7f\r"


def test_names_are_printed_as_text() -> None:
    assert output.printable("plain, 数字 ü") == "plain, 数字 ü"
    assert output.printable(HOSTILE + "\n") == r"a\x1b[2Jb\x9b1mc\x7f\r\n"
    assert output.printable("one\ntwo\x1b", lines=True) == "one\ntwo\\x1b"


def test_json_tells_a_terminal_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": HOSTILE + "ü"})
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "ü" in printed
    assert json.loads(printed) == {"name": HOSTILE + "ü"}


def test_errors_tell_a_terminal_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_args: list[str]) -> int:
        raise CopyFailed(f"{HOSTILE} is gone.", hint=HOSTILE)

    monkeypatch.setattr(main, "_dispatch", fail)
    assert main._guarded(["cp"]) == 1
    printed = capsys.readouterr().err
    assert printed.replace("\n", "").isprintable()
    assert printed.startswith("sublet: a\\x1b[2Jb")
