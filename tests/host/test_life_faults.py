"""The daemon dies amid a start again, a pause, an update; the next one makes it good."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Sublet, eventually

LOOP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


@pytest.fixture(scope="module")
def frail_daemon(small_file: Path) -> Iterator[Sublet]:
    """A daemon of these tests' own, which is killed again and again."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    yield sublet
    sublet.clean()
    sublet.close()


@pytest.fixture
def frail(frail_daemon: Sublet) -> Iterator[Sublet]:
    yield frail_daemon
    frail_daemon.ok("rm", "-f", "box")


def dies(sublet: Sublet, point: str, *args: str) -> None:
    """Run a command against a daemon that dies at `point`; then the fault is lifted."""
    sublet.ok("daemon", "--stop")
    outcome = replace(sublet, extra={"SUBLET_FAULT": point})(*args)
    assert "The daemon went away" in outcome.err, f"{point} was not met: {outcome}"
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")


def frozen(pid: int) -> bool:
    """Whether the process is frozen, by the freezer that it is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            state = Path(f"/sys/fs/cgroup/freezer{path}/freezer.state")
            return state.read_text().strip() == "FROZEN"
    (path,) = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().split()]
    return "frozen 1" in Path(f"/sys/fs/cgroup{path}/cgroup.events").read_text()


def test_what_was_created_stays_created(frail: Sublet) -> None:
    made = frail.ok("create", "--name", "box", "small", *LOOP)
    dies(frail, "start/cgroups:after", "start", "box")
    row = frail.json("inspect", "box")
    assert (row["id"], row["state"], row["pid"]) == (made, "stopped", None)
    frail.ok("start", "box")
    assert frail.json("inspect", "box")["state"] == "running"


@pytest.mark.parametrize(
    ("before", "point"),
    [
        pytest.param("running", "pause/freeze:before", marks=pytest.mark.slow),
        ("running", "pause/freeze:after"),
        pytest.param("running", "pause/row:after", marks=pytest.mark.slow),
        pytest.param("paused", "unpause/thaw:before", marks=pytest.mark.slow),
        ("paused", "unpause/thaw:after"),
        pytest.param("paused", "unpause/row:after", marks=pytest.mark.slow),
    ],
)
def test_state_and_freezer_agree(frail: Sublet, before: str, point: str) -> None:
    frail.ok("run", "-d", "--name", "box", "small", *LOOP)
    pid = frail.json("inspect", "box")["pid"]
    if before == "paused":
        frail.ok("pause", "box")
    dies(frail, point, point.partition("/")[0], "box")
    state = frail.json("inspect", "box")["state"]
    assert (state == before) is not point.endswith("row:after")
    assert frozen(pid) is (state == "paused")


def test_row_and_limits_agree(frail: Sublet) -> None:
    frail.ok("run", "-d", "--name", "box", "--pids-limit", "50", "small", *LOOP)
    pid = frail.json("inspect", "box")["pid"]
    dies(frail, "update/row:after", "update", "--pids-limit", "60", "box")
    assert frail.json("inspect", "box")["limits"]["pids"] == 60
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line for line in lines if ":pids:" in line or line.startswith("0::"))
    places = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
    files = [place / path.split(":", 2)[2].lstrip("/") / "pids.max" for place in places]
    assert [f.read_text().strip() for f in files if f.exists()] == ["60"]
