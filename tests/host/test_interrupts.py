"""Ctrl-C, a killed command and a killed daemon, at moments of every long action.

Afterwards nothing is left, and the same command works.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clilab import (
    assert_nothing_left,
    context,
    end,
    made_foreign,
    processes,
    seen,
    talks,
    temporaries,
)
from conftest import Sublet, eventually, slowly
from imagelab import archive, call, entry, make_layout

NOISE = 24 << 20
INTERRUPT, KILL, DEATH = ENDS = ("interrupt", "kill", "kill the daemon")


def ends(normal: dict[str, tuple[str, ...]]) -> list[Any]:
    """Every end at each moment; those that are not named for it are of the slow tier."""
    named = [(moment, how) for moment, ends in normal.items() for how in ends]
    pairs = [(moment, how) for moment in normal for how in ENDS]
    rest = (pair for pair in pairs if pair not in named)
    return [*named, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in rest)]


@pytest.fixture(scope="module")
def frail(small_file: Path) -> Iterator[Sublet]:
    """A daemon that is killed again and again, with a small image."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    yield sublet
    sublet.clean()
    sublet.close()


@pytest.fixture(autouse=True)
def nothing_left(frail: Sublet) -> Iterator[None]:
    yield
    assert_nothing_left(frail)


def stop_half_way(
    sublet: Sublet,
    how: str,
    args: tuple[str, ...],
    moment: Callable[[subprocess.Popen[str]], None],
) -> None:
    """Run a command until `moment` returns, and end it, or the daemon; nothing is left."""
    daemon = sublet.daemon_pid()
    process = sublet.spawn(*args)
    moment(process)
    assert process.poll() is None, f"it has ended: {process.communicate()}"
    if how == "interrupt":
        code, out, err = end(process, signal.SIGINT)
        assert (code, out) == (130, "")
        assert "sublet: interrupted" in err
    elif how == "kill":
        assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
    else:
        os.kill(daemon, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert "sublet: The daemon went away" in err
        assert "Traceback" not in err
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")
    eventually(lambda: not temporaries(sublet), "no temporary file")
    assert_nothing_left(sublet)
    eventually(lambda: sublet.ok("images", "-q").count("sha256") == 1, "no image more")


def noise(place: Path) -> Path:
    place.mkdir(exist_ok=True)
    (place / "noise").write_bytes(os.urandom(NOISE))
    return place


def working(sublet: Sublet) -> Callable[[subprocess.Popen[str]], None]:
    """The moment when a temporary file has begun to grow."""

    def begun() -> bool:
        found = [p for place in (sublet.root / "tmp").glob("image-*") for p in place.iterdir()]
        return any(path.is_file() and path.stat().st_size for path in found)

    return lambda _: eventually(begun, "work has begun", 30)


BUILDS = {"STEP 1/": (INTERRUPT,), "ready": (KILL, DEATH), "Packing the image": (INTERRUPT,)}


@pytest.mark.parametrize(("line", "how"), ends(BUILDS))
def test_build(frail: Sublet, tmp_path: Path, line: str, how: str) -> None:
    text = f"FROM small\nRUN echo ready; sleep 1.{os.getpid()}\nCOPY noise /\n"
    args = ("build", context(noise(tmp_path / "ctx"), text), "-t", "made")
    stop_half_way(frail, how, args, lambda process: seen(process, line))
    eventually(lambda: not processes(f"sleep 1.{os.getpid()}"), "its command ends")
    if line == "ready":
        digest = frail.ok(*args)
        assert frail.ok("run", "--rm", "made", "echo", "works") == "works"
        frail.ok("rmi", digest)


PULLS = {"Asking": (KILL,), "Packing the image": (INTERRUPT, DEATH)}


@pytest.mark.parametrize(("line", "how"), ends(PULLS))
def test_pull(frail: Sublet, tmp_path: Path, registry: str, line: str, how: str) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("noise", os.urandom(NOISE))))
    name = f"{registry}/noise:1"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}")
    stop_half_way(frail, how, ("pull", name), lambda process: seen(process, line))
    if line != "Asking":
        assert frail.ok("pull", name).startswith("sha256:")
        frail.ok("rmi", name)


VERBS = {"pack": (KILL,), "import": (INTERRUPT,), "import a foreign file": (DEATH,)}


@pytest.mark.parametrize(("verb", "how"), ends(VERBS))
def test_pack_and_import(frail: Sublet, tmp_path: Path, verb: str, how: str) -> None:
    tree, output = noise(tmp_path / "tree"), tmp_path / "out.sif"
    args: tuple[str, ...] = ("pack", str(tree), "-o", str(output))
    if verb == "import":
        call("tar", "-C", tree, "-cf", tmp_path / "noise.tar", ".")
        args = ("import", str(tmp_path / "noise.tar"), "-t", "made")
    elif verb != "pack":
        frail.ok(*args)
        foreign = made_foreign(output, tmp_path / "foreign.sif")
        output.unlink()
        args = ("import", str(foreign), "-t", "made")
    stop_half_way(frail, how, args, working(frail))
    assert not output.exists()
    assert not list(tmp_path.glob(".*"))
    frail.ok(*args)
    if verb == "pack":
        assert output.stat().st_size > NOISE
    else:
        frail.ok("rmi", "made")


MOMENTS = (0, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1)
"""Seconds from when the command talks to the daemon."""

moments = pytest.mark.parametrize(
    "moments", [MOMENTS[::2], *slowly(MOMENTS[1::2])], ids=["these", "others"]
)

PATIENCE = 5.0
"""Seconds after which Ctrl-C comes again: what has not set its trap yet does not hear the first."""

NAP = ("sleep", f"97531.{os.getpid()}")
"""No other worker of these tests has such a process."""

CATCHES = "trap 'exit 3' INT; echo ready; while :; do sleep 0.05; done"


def after(process: subprocess.Popen[str], seconds: float) -> None:
    """Let the command talk to the daemon for that long, or to its end."""
    talks(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def taken_back(sublet: Sublet, flags: tuple[str, ...]) -> bool:
    """No instance is there; one that was complete before the signal may run on, detached."""
    rows = sublet.json("ps", "-a", "--json")
    return not rows or (flags == ("-d",) and [row["state"] for row in rows] == ["running"])


@moments
@pytest.mark.parametrize("flags", [("--rm",), (), ("-d",)], ids=["rm", "keep", "detached"])
def test_interrupted_run(frail: Sublet, flags: tuple[str, ...], moments: tuple[float, ...]) -> None:
    for moment in moments:
        process = frail.spawn("run", "--name", "victim", *flags, "small", "sh", "-c", CATCHES)
        after(process, moment)
        code, out, err = end(process, signal.SIGINT, PATIENCE)
        assert "Traceback" not in err
        if flags == ("-d",) and code == 0:
            assert frail.ok("ps", "-q") == out.strip()
        elif flags == () and code not in (130, -2):
            assert frail.json("inspect", "victim")["exit_code"] == code
        else:
            # -2: the signal came while Python itself was starting
            assert code in (130, -2) or (flags == ("--rm",) and code in (3, 137))
            eventually(lambda: taken_back(frail, flags), "the start is taken back")
        frail.ok("rm", "-f", "victim")
        assert_nothing_left(frail)


@moments
def test_killed_run(frail: Sublet, moments: tuple[float, ...]) -> None:
    """Whoever kills the command does not kill what it started; a half start is taken back."""
    for moment in moments:
        process = frail.spawn("run", "--rm", "--name", "victim", "small", "sh", "-c", CATCHES)
        after(process, moment)
        end(process, signal.SIGKILL)
        eventually(
            lambda: all(row["state"] == "running" for row in frail.json("ps", "-a", "--json")),
            "the instance runs, or is gone",
        )
        if frail.ok("ps", "-q"):
            assert frail.ok("exec", "victim", "echo", "works") == "works"
        frail.ok("rm", "-f", "victim")
        assert_nothing_left(frail)


@moments
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_exec(
    frail: Sublet, number: signal.Signals, moments: tuple[float, ...]
) -> None:
    frail.ok("run", "-d", "--name", "box", "small", "sleep", "100")
    for moment in moments:
        process = frail.spawn("exec", "box", *NAP)
        after(process, moment)
        code, _, err = end(process, number, PATIENCE)
        assert code == (130 if number == signal.SIGINT else -number)
        assert "Traceback" not in err
        eventually(lambda: not processes(" ".join(NAP)), "the process ends with it")
    assert frail.ok("exec", "box", "echo", "works") == "works"
    frail.ok("rm", "-f", "box")


def test_a_daemon_killed_under_a_run(frail: Sublet) -> None:
    process = frail.spawn("run", "--name", "victim", "small", "sh", "-c", CATCHES)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    frail.kill_daemon()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (125, "")
    assert "sublet: The daemon went away" in err
    assert [row["state"] for row in frail.json("ps", "--json")] == ["running"]
    frail.ok("rm", "-f", "victim")


def test_a_second_daemon_after_many_deaths(frail: Sublet) -> None:
    """The daemon starts by itself every time, and one resolver serves it."""
    for _ in range(3):
        frail.kill_daemon()
        assert frail.ok("run", "--rm", "small", "echo", "works") == "works"
    own = str(frail.home)
    resolvers = [line for line in processes("dnsmasq").values() if own in line]
    assert len(resolvers) <= 1
