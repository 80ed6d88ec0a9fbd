"""Python code in sandboxes, with a python3 of Debian's that has the least."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BASE
from conftest import Sublet as CommandLine

import sublet
from sublet.domain.errors import CommandNotFound
from sublet.sdk.sandbox_results import PythonTimeout

IMAGE = "sandbox-python"
CONTAINERFILE = f"""
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-minimal
"""
STUBBORN = """
import time
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        print("never")
"""


@pytest.fixture
def here(
    sublet: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[CommandLine]:
    """This process talks to the tests' daemon, which has an image with python3."""
    monkeypatch.setenv("SUBLET_ROOT", str(sublet.root))
    monkeypatch.setenv("SUBLET_RUN", str(sublet.run_dir))
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    sublet.ok("build", "-t", IMAGE, str(tmp_path), timeout=300)
    yield sublet
    sublet.ok("rmi", IMAGE)


def test_code_is_run_by_an_interpreter_that_stays(here: CommandLine) -> None:
    with sublet.Sandbox.create(IMAGE) as box:
        _keeps_its_state(box)
        _tells_errors(box)
        _is_interrupted(box)
        _is_killed_where_it_does_not_heed(box)
        _begins_anew(box)
    with sublet.Sandbox.create(BASE) as bare, pytest.raises(CommandNotFound, match="no python3"):
        bare.run_python("1")


def _keeps_its_state(box: sublet.Sandbox) -> None:
    first = box.run_python("import sys\nx = 6\nprint('out'); print('err', file=sys.stderr)\nx * 7")
    assert (first.stdout, first.stderr, first.value, first.repr) == ("out\n", "err\n", 42, "42")
    assert (first.error, first.ok, first.truncated) == (None, True, False)
    assert box.run_python("x").value == 6
    cut = box.run_python("print('y' * 100_000)", limit=10)
    assert (cut.stdout, cut.truncated) == ("y" * 10, True)
    assert box.run_python("import os; os.system('echo sub')").stdout == "sub\n"


def _tells_errors(box: sublet.Sandbox) -> None:
    failed = box.run_python("def f():\n    return 1 / 0\nprint('before')\nf()")
    assert (failed.stdout, failed.value, failed.ok) == ("before\n", None, False)
    assert failed.error is not None
    assert (failed.error.name, failed.error.message) == ("ZeroDivisionError", "division by zero")
    assert "in f\n    return 1 / 0" in failed.error.traceback


def _is_interrupted(box: sublet.Sandbox) -> None:
    with pytest.raises(PythonTimeout, match="still there") as caught:
        box.run_python("print('begun')\nimport time\ntime.sleep(600)", timeout=4)
    assert caught.value.result.stdout == "begun\n"
    assert box.run_python("x").value == 6


def _is_killed_where_it_does_not_heed(box: sublet.Sandbox) -> None:
    with pytest.raises(PythonTimeout, match="is gone") as caught:
        box.run_python(STUBBORN, timeout=4)
    assert caught.value.result.stdout == "never\n"
    fresh = box.run_python("x").error
    assert fresh is not None
    assert fresh.name == "NameError"


def _begins_anew(box: sublet.Sandbox) -> None:
    box.run_python("y = 1")
    died = box.run_python("import os; os._exit(7)").error
    assert died is not None
    assert (died.name, "ended with 7" in died.message) == ("InterpreterEnded", True)
    box.run_python("y = 2")
    (fork,) = box.fork()
    with fork:
        assert fork.run_python("1 + 1").value == 2
        assert not fork.run_python("y").ok
    assert box.run_python("y").value == 2
    box.restart_python()
    assert not box.run_python("y").ok
