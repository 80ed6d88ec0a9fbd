"""From the texts of the flags that few use to a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sublet.cli.options import env_files, rare
from sublet.domain.errors import InvalidArgument
from sublet.sdk.results import instance_spec


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"no_healthcheck": True, "health_cmd": "x"}, {"test": []}),
        ({"health_interval": "500ms"}, {"interval": 0.5}),
        (
            {"health_cmd": "a b", "health_timeout": "2s", "health_retries": "4"},
            {"test": ["/bin/sh", "-c", "a b"], "timeout": 2.0, "retries": 4},
        ),
    ],
)
def test_health_flags(options: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert rare(options)["health"] == expected


def test_security_options(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{}")
    for text in (f"seccomp={tmp_path}/profile.json", f"seccomp:{tmp_path}/profile.json"):
        assert rare({"security_opt": ["no-new-privileges", text]})["seccomp"] == "{}"
    assert rare({"security_opt": ["seccomp=unconfined"]})["seccomp"] == "unconfined"
    for wrong in ("apparmor=x", "seccomp", "no-new-privileges:false", "seccomp=/not/there"):
        with pytest.raises(InvalidArgument):
            rare({"security_opt": [wrong]})


@pytest.mark.parametrize("line", ["export A=1", "=1", "A B=1", "A B"])
def test_lines_that_are_no_variables(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(InvalidArgument, match="no variable"):
        env_files([str(tmp_path / "env")])


def test_files_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "now")
    monkeypatch.delenv("NOT_HERE", raising=False)
    (tmp_path / "env").write_bytes(b"\xef\xbb\xbfA=1 # x\r\n\r\n  # no\nB='q'\nHERE\nNOT_HERE\nC=")
    assert env_files([str(tmp_path / "env")]) == ["A=1 # x", "B='q'", "HERE=now", "C="]
    (tmp_path / "env").write_bytes(b"A=\xff")
    for wrong in (tmp_path / "env", tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidArgument):
            env_files([str(wrong)])


def test_the_rest_passes_into_a_request() -> None:
    options = {"cap_add": ["net_raw"], "read_only": True, "ulimit": ["core=0"], "restart": "always"}
    options |= {"device": ["/dev/fuse"], "sysctl": ["net.core.somaxconn=5"], "label": ["a=b=c"]}
    spec = instance_spec("i", **rare(options))
    assert spec["cap_add"] == ["net_raw"]
    assert spec["read_only"] is True
    assert spec["ulimits"] == [{"name": "core", "soft": 0, "hard": 0}]
    assert spec["restart"] == {"name": "always", "maximum": 0}
    assert spec["devices"][0]["destination"] == "/dev/fuse"
    assert spec["sysctls"] == {"net.core.somaxconn": "5"}
    assert spec["labels"] == {"a": "b=c"}
