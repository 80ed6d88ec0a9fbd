"""The command of `sublet with`: exit codes, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sublet.cli import companion
from sublet.domain.errors import CommandNotExecutable, CommandNotFound

RUN = "import os, signal, sys; from sublet.cli import companion; "
RUN += "code = companion.run(sys.argv[1:], os.environ); "
RUN += "print(signal.pthread_sigmask(signal.SIG_BLOCK, [])); sys.exit(code)"
"""What of our own signals is blocked afterwards: nothing."""


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ('exit "$GIVEN"', 9)]
)
def test_its_code_is_ours(script: str, code: int) -> None:
    """In a process with one thread, as the CLI is: signals that it waits for go to no other."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "sh", "-c", script],
        env={**os.environ, "GIVEN": "9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "set()\n", "")


def test_what_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(CommandNotFound):
        companion.run([str(tmp_path / "nothing")], os.environ)
    for path in (tmp_path, tmp_path / "text"):
        with pytest.raises(CommandNotExecutable):
            companion.run([str(path)], os.environ)


def test_what_is_found_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "program").write_text("#!/bin/sh")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    for name in ("program", str(tmp_path / "program")):
        companion.check([name])
    for name in ("text", str(tmp_path / "text"), str(tmp_path)):
        with pytest.raises(CommandNotExecutable):
            companion.check([name])
    for name in ("nothing", "", str(tmp_path / "nothing"), "./nothing"):
        with pytest.raises(CommandNotFound):
            companion.check([name])


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_signals_are_handed_on(name: str) -> None:
    script = f"trap 'echo got; exit 3' {name}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.read() == "got\nset()\n"
    assert process.returncode == 3
