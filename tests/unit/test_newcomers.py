"""What somebody meets who writes the commands for the first time: no daemon is started for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUBLET = Path(sys.executable).parent / "sublet"


def sublet(tmp_path: Path, *args: str, **env: str) -> tuple[int, str]:
    places = {"SUBLET_ROOT": str(tmp_path / "root"), "SUBLET_RUN": str(tmp_path / "run")}
    done = subprocess.run(
        [SUBLET, *args],
        env={"PATH": "/usr/bin:/bin", **places, **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("with", "postgres:15", "pytest"), 125, "`--` goes before the command"),
        (("with", "pytest", "-q"), 125, "`--` goes before the command"),
        (("with", "postgres:15", "--", "no-such-command"), 127, "mend its spelling"),
        (("with", "postgres:15", "--", "./no-such-command"), 127, "mend its spelling"),
        (("try", "touch", "new"), 125, "`--` goes before the command"),
        (("try", "sh", "-c", "true"), 125, "`--` goes before the command"),
        (("db", "postgres:15", "-p", "port"), 1, "Write -p 5432."),
        (("db", "postgres:15", "-d", "--ttl", "soon"), 1, "Write 90s, 30m, 2h or 7d."),
        (("browse", "./index.html"), 1, "serve its directory"),
        (("browse", "localhost:1", "--screenshot", "/no/x.png"), 1, "that you may write to"),
        (("browse", "localhost:1", "--screenshot", "x.jpg"), 1, "Write --screenshot page.png."),
        (("browse", __file__), 1, "serve its directory"),
        (("wiht", "redis:7"), 1, "Do you mean with?"),
    ],
)
def test_a_slip(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    ended, text = sublet(tmp_path, *args)
    assert said in text
    assert ended == code
    assert not (tmp_path / "run").exists(), "nothing was started for it"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("with post", "postgres:15"),
        ("db maria", "mariadb:11.8"),
        ("try pyth", "python:3.11"),
        ("browse --browser fire", "firefox-esr:trixie"),
        ("browse --compare chrom", "chromium:bookworm"),
        ("mcp --image node", "node:18.20"),
    ],
)
def test_what_a_shell_offers(tmp_path: Path, line: str, offered: str) -> None:
    words = f"sublet {line}"
    count = str(len(words.split()) - 1)
    asked = {"COMP_WORDS": words, "COMP_CWORD": count, "_SUBLET_COMPLETE": "bash_complete"}
    _, text = sublet(tmp_path, **asked)
    assert f"plain,{offered}" in text.split()
