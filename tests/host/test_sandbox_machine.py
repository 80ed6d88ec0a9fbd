"""Sandboxes that are virtual machines."""

from __future__ import annotations

import pytest
from conftest import Sublet as CommandLine
from conftest import eventually
from sandboxlab import gone
from vmhost import IMAGE

import sublet
from sublet.domain.errors import CopyFailed, NoSuchPath
from sublet.sdk.sandbox_results import FileChange, Isolation


@pytest.fixture(autouse=True)
def here(vm: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """This process talks to the tests' daemon for VMs."""
    for name, value in {**vm.extra, "SUBLET_ROOT": vm.root, "SUBLET_RUN": vm.run_dir}.items():
        monkeypatch.setenv(name, str(value))
    return vm


def test_a_machine_is_a_sandbox_like_any_other(here: CommandLine) -> None:
    with sublet.Sandbox.create(IMAGE, isolation="vm", size="1x0.125", egress="default") as box:
        assert box.isolation is Isolation.VM
        both = box.exec("echo out; echo err >&2; exit 3", user="bin")
        assert (both.exit_code, both.stdout, both.stderr) == (3, "out\n", "err\n")
        _times_out(box)
        _files(box)
        _watch(box)
        _goes_on_in_forks(box)


def _times_out(box: sublet.Sandbox) -> None:
    with pytest.raises(sublet.TimeoutExceeded) as caught:
        box.exec("echo begun; sleep 7101 & setsid sleep 7102 & sleep 7103", timeout=8)
    assert caught.value.result.stdout == "begun\n"  # type: ignore[attr-defined]
    gone(box, "7101", "7102", "7103")


def _files(box: sublet.Sandbox) -> None:
    data = bytes(range(256)) * 1000
    box.files.write("/new/dir/file", data, mode=0o600)
    assert box.files.read("/new/dir/file") == data
    assert [row.path for row in box.files.list("/new", depth=3)] == ["/new/dir", "/new/dir/file"]
    box.exec("mkfifo /fifo; ln -s ../../../../data/seed /link")
    assert box.files.read_text("/link") == "filled\n"
    with pytest.raises(CopyFailed, match="FIFO, a socket or a device"):
        box.files.read("/fifo", timeout=60)
    with pytest.raises(CopyFailed):
        box.files.read("/proc/kmsg", timeout=60)
    box.files.rename("/new/dir/file", "/new/moved")
    box.files.remove("/new")
    with pytest.raises(NoSuchPath):
        box.files.stat("/new")


def _watch(box: sublet.Sandbox) -> None:
    box.files.mkdir("/w/sub")
    with box.files.watch("/w", recursive=True, timeout=60) as watch:
        box.exec("echo x > /w/sub/a; mv /w/sub/a /w/b")
        seen = []
        for event in watch:
            seen.append((event.type, event.path, event.to))
            if event.type is FileChange.MOVED:
                break
    assert (FileChange.CREATED, "/w/sub/a", "") in seen
    assert seen[-1] == (FileChange.MOVED, "/w/sub/a", "/w/b")


def _goes_on_in_forks(box: sublet.Sandbox) -> None:
    count = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.1; done"
    box.exec(f"({count}) > /dev/null 2>&1 &")
    snapshot = box.snapshot()
    box.files.write("/later", "1")
    (fork,) = box.fork()
    with fork:
        assert fork.files.exists("/later")
        assert _count(fork) > 0
    box.rollback(snapshot)
    assert not box.files.exists("/later")
    before = _count(box)
    eventually(lambda: _count(box) > before, "it goes on")


def _count(box: sublet.Sandbox) -> int:
    """How far it has counted; the file is empty for a moment at each number."""
    found: list[str] = []

    def read() -> bool:
        found[:] = box.exec("cat /dev/shm/count").stdout.split()
        return bool(found)

    eventually(read, "it counts")
    return int(found[0])
