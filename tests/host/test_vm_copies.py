"""Copies in and out of VMs: what holds for containers (test_files.py) holds for them, by a guest
that runs, and by one that is booted for the copy of a stopped instance."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import test_files
from clilab import assert_explained
from conftest import BASE, Sublet, eventually
from test_files import (  # noqa: F401
    either,
    test_a_cut_stream_is_an_error,
    test_files_and_their_destinations,
    test_removal_ends_a_stalled_export,
    test_there_and_back,
)

VM = ("--vm", "--memory", "256m")


@pytest.fixture
def box(sublet: Sublet) -> Iterator[Sublet]:
    """A daemon with a running VM `box`."""
    sublet.ok("run", "-d", *VM, "--name", "box", "-v", "boxed:/kept", BASE, "sleep", "1000")
    yield sublet
    sublet("rm", "-f", "box")
    sublet("volume", "rm", "boxed")


def begun(copy: subprocess.Popen[str]) -> BinaryIO:
    """The rest of the output of a copy, of which something has come."""
    assert copy.stdout is not None
    out: BinaryIO = copy.stdout.buffer  # type: ignore[attr-defined]
    assert len(out.read(1000)) == 1000
    return out


def lines(box: Sublet, *args: str) -> list[str]:
    return box.ok(*args).splitlines()


def test_a_stopped_vm_has_all_that_a_running_one_has(box: Sublet, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    box.ok("exec", "box", "sh", "-c", "echo text > /srv/made && rm /etc/motd")
    box.ok("cp", str(tmp_path / "in"), "box:/kept/volume")
    running = lines(box, "diff", "box")
    assert {"A /srv/made", "D /etc/motd"} <= set(running)
    assert not [line for line in running if "hosts" in line or "resolv" in line]
    box.ok("stop", "-t", "1", "box")
    assert lines(box, "diff", "box") == running
    box.ok("cp", str(tmp_path / "in"), "box:/srv/in")
    box.ok("cp", "box:/kept/volume", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "from the host"
    assert box.json("audit", "--json") == []  # the guest that copied has gone
    box.ok("start", "box")
    assert box.ok("exec", "box", "cat", "/srv/in", "/kept/volume") == "from the hostfrom the host"


def test_an_image_of_a_vm_runs_as_either(sublet: Sublet, small_file: Path, tmp_path: Path) -> None:
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    sublet.ok("run", "-d", *VM, "--name", "box", "small", "sleep", "1000")
    sublet.ok("exec", "box", "sh", "-c", "echo text > /made")
    own = sublet.ok("exec", "box", "cat", "/etc/hosts")
    for name in ("live", "still"):
        sublet.ok("commit", "box", name)
        assert sublet.ok("run", "--rm", name, "cat", "/made") == "text"
        hosts = ("run", "--rm", "--network", "none", name, "cat", "/etc/hosts")
        assert own not in sublet.ok(*hosts)
        sublet.ok("stop", "-t", "1", "box")
    assert sublet.ok("run", "--rm", *VM, "still", "cat", "/made") == "text"
    sublet.ok("export", "box", "-o", str(tmp_path / "root.tar"))
    with tarfile.open(tmp_path / "root.tar") as archive:
        names = set(archive.getnames())
    assert {"./made", "./etc/passwd", "./bin/sh"} <= names
    assert not {"./etc/hosts", "./proc/version", "./lib/modules"} & names
    sublet.ok("rm", "box")
    sublet.ok("rmi", "live", "still", "small")


def test_its_own_kernel_lists_its_processes(box: Sublet) -> None:
    box.ok("exec", "box", "sh", "-c", "sleep 999 >/dev/null 2>&1 &")
    eventually(lambda: "sleep 999" in box.ok("top", "box"), "the process is listed")
    rows = box.json("top", "box", "--json")
    assert rows[0]["command"] == "sleep 1000"
    assert {row["user"] for row in rows} == {"root"}
    assert not [row for row in rows if row["command"].startswith(("[", "@"))]


def test_one_that_stands_still_is_refused(box: Sublet, tmp_path: Path) -> None:
    for stop, go_on, hint in (
        ("pause", "unpause", "unpause box"),
        ("hibernate", "wake", "wake box"),
    ):
        box.ok(stop, "box")
        for args in (("cp", "box:/srv", str(tmp_path)), ("diff", "box"), ("commit", "box", "x")):
            refused = box(*args)
            assert refused.code == 1
            assert hint in refused.err
            assert_explained(refused.err)
        box.ok(go_on, "box")
    assert "sleep 1000" in box.ok("top", "box")


def test_a_volume_that_somebody_is_at_is_in_use(box: Sublet) -> None:
    box.ok("exec", "box", "sh", "-c", "head -c 40M /dev/zero > /kept/big")
    box.ok("stop", "-t", "1", "box")
    with box.spawn("cp", "box:/kept", "-") as reading:
        out = begun(reading)
        other = box("run", "--rm", *VM, "-v", "boxed:/kept", BASE, "true")
        assert other.code == 125
        assert "in use by box" in other.err
        os.killpg(reading.pid, signal.SIGINT)
        out.read()
    argv = ("run", "--rm", *VM, "-v", "boxed:/kept", BASE, "test", "-s", "/kept/big")
    eventually(lambda: box(*argv).code == 0, "the guest that copied has let go of the volume")


def test_who_goes_away_leaves_nothing_running_in_the_guest(box: Sublet) -> None:
    agents = ("exec", "box", "sh", "-c", "grep -c '^.init' /proc/[0-9]*/cmdline | grep -c ':1'")
    box.ok("exec", "box", "sh", "-c", "head -c 40M /dev/zero > /srv/big")
    before = min(int(box.ok(*agents)) for _ in range(3))  # the end of one may be under way
    with box.spawn("cp", "box:/srv", "-") as reading:
        out = begun(reading)
        eventually(lambda: int(box.ok(*agents)) == before + 1, "a program in the guest copies")
        os.killpg(reading.pid, signal.SIGINT)
        out.read()
    eventually(lambda: int(box.ok(*agents)) == before, "the program in the guest has ended")


def test_a_daemon_that_is_killed_at_a_copy_leaves_no_guest(own: Sublet, tmp_path: Path) -> None:
    own.ok("create", *VM, "--name", "box", BASE, "sleep", "1000")
    with own.spawn("cp", "box:/usr", "-") as reading:
        out = begun(reading)
        own.kill_daemon()
        out.read()
        assert reading.wait(60) == 1
    eventually(lambda: own("audit").code == 0, "the audit is clean")
    look = ["pgrep", "-f", "--", f"--directory={own.run_dir}"]
    eventually(
        lambda: subprocess.run(look, capture_output=True, check=False).returncode == 1,
        "the guest has ended",
    )
    own.ok("cp", "box:/etc/passwd", str(tmp_path))
    assert "root" in (tmp_path / "passwd").read_text()


@pytest.mark.slow
def test_much_and_deep(box: Sublet, tmp_path: Path) -> None:
    test_files.test_very_deep_directories(box, tmp_path)
    test_files.test_an_interrupted_copy_leaves_no_half_file(box, tmp_path)
    test_files.test_swapped_links_do_not_lead_out(box, tmp_path)
