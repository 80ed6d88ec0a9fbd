"""The example images and the list of system packages: small things that drift apart."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD, NEW = ROOT / "examples" / "postgres-15", ROOT / "examples" / "postgres-17"


def test_the_two_databases_differ_in_version_alone() -> None:
    for name in ("entrypoint", "make-cluster"):
        assert (OLD / name).read_bytes() == (NEW / name).read_bytes()
    text = (OLD / "Containerfile").read_text()
    text = text.replace("15", "17").replace("bookworm", "trixie")
    assert text == (NEW / "Containerfile").read_text()


@pytest.mark.parametrize(
    "script", ["examples/postgres-15/entrypoint", "examples/postgres-15/make-cluster",
               "examples/dev-machine/entrypoint", "scripts/setup", "scripts/lock",
               "examples/three-servers/files/entrypoint", "examples/three-servers/mail/entrypoint",
               "examples/three-servers/mail/configure", "examples/three-servers/client/use"],
)  # fmt: skip
def test_shell_scripts_parse_and_stop_at_errors(script: str) -> None:
    path = ROOT / script
    subprocess.run(["sh", "-n", path], check=True, timeout=20)
    assert "\nset -eu\n" in path.read_text()
    assert path.stat().st_mode & 0o111


def test_every_system_package_has_its_reason() -> None:
    lines = (ROOT / "scripts" / "packages.txt").read_text().splitlines()
    rows = [line.split(maxsplit=3) for line in lines if line and not line.startswith("#")]
    assert all(len(row) == 4 for row in rows)
    assert {row[1] for row in rows} == {"run", "dev", "bench"}
    assert len({row[0] for row in rows}) == len(rows)
