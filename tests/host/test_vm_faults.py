"""What goes wrong with a VM: a clear error, a true state, and nothing left."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SUBLET, Sublet, ended, eventually, slowly
from imagelab import call
from test_disk_full import filled
from vmhost import (
    COUNT,
    IMAGE,
    LOOP,
    SMALL,
    at,
    count,
    daemon,
    memory_of,
    pool,
    qemu,
    row,
    state,
    up,
)

from sublet.domain.config import Config
from sublet.domain.size import Size
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.network.identity import veth


@pytest.fixture
def own(busybox_file: Path) -> Iterator[Sublet]:
    """A daemon that a test may kill."""
    with daemon(busybox_file) as sublet:
        yield sublet


def start(vm: Sublet, *flags: str, command: tuple[str, ...] = COUNT, name: str = "box") -> str:
    return vm.ok("run", "-d", *SMALL, "--name", name, *flags, IMAGE, *command)


def test_a_kernel_panic(vm: Sublet) -> None:
    command = ("sh", "-c", "sleep 0.5; echo c > /proc/sysrq-trigger; sleep 100")
    assert vm("run", *SMALL, "--name", "box", IMAGE, *command).code == 255
    shown = row(vm, "box")
    assert (shown["state"], shown["exit_code"]) == ("stopped", 255)
    assert "panic" in str(shown["reason"]).lower()
    vm.ok("start", "box")
    vm.ok("rm", "-f", "box")


def test_qemu_is_killed(vm: Sublet) -> None:
    start(vm, "--restart", "no")
    vm.ok("exec", "box", "sh", "-c", "echo kept > /mark; sync")
    busy = vm.spawn("exec", "box", "sleep", "1000")
    eventually(lambda: "sleep" in vm.ok("exec", "box", "ps"), "it sleeps")
    os.kill(qemu(vm, "box"), signal.SIGKILL)
    assert vm.ok("wait", "box") == "137"
    assert busy.wait(60) == 137
    busy.communicate()
    shown = row(vm, "box")
    assert (shown["state"], shown["exit_code"]) == ("stopped", 137)
    assert "killed by signal 9" in str(shown["reason"])
    vm.ok("start", "box")
    assert vm.ok("exec", "box", "cat", "/mark") == "kept"


def test_the_supervisor_is_killed(vm: Sublet) -> None:
    start(vm)
    pid = qemu(vm, "box")
    os.kill(_parent(pid), signal.SIGKILL)
    assert vm.ok("wait", "box") == "137"
    eventually(lambda: ended(pid), "the machine went with it")
    assert state(vm, "box") == "stopped"


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[1])


@pytest.mark.parametrize("harm", ["truncated", *slowly("zeroed", "empty")])
def test_a_damaged_disk(vm: Sublet, harm: str) -> None:
    found = start(vm)
    vm.ok("stop", "-t", "0", "box")
    disk = pool(vm) / "instances" / found / "disk.img"
    spare = disk.with_name("spare")
    call("cp", "--sparse=always", "--reflink=auto", disk, spare)
    if harm == "zeroed":
        with disk.open("r+b") as opened:
            opened.write(bytes(8192))
    else:
        os.truncate(disk, 1 << 20 if harm == "truncated" else 0)
    outcome = vm("start", "box")
    assert (outcome.code, "disk" in outcome.err) == (1, True), outcome
    assert len(outcome.err.splitlines()) >= 2  # a hint
    assert (state(vm, "box"), "disk" in str(row(vm, "box")["reason"])) == ("stopped", True)
    spare.replace(disk)
    vm.ok("start", "box")
    count(vm, "box")


@pytest.mark.parametrize("parts", [("memory",), *slowly(("devices", "shape"))])
def test_a_damaged_template_is_dropped(own: Sublet, parts: tuple[str, ...]) -> None:
    for part in parts:
        own.ok("run", "--rm", *SMALL, IMAGE, "true")
        templates = pool(own) / "templates"
        eventually(lambda t=templates: len(names(t)) == 1, "there is a template")
        (key,) = names(templates)
        own.ok("daemon", "--stop")
        assert own.ok("ps", "-q") == ""  # there is a new one, which knows the template's file alone
        file = templates / key / part
        os.truncate(file, file.stat().st_size // 2)
        assert own.ok("run", "--rm", *SMALL, IMAGE, "echo", "fine") == "fine"


def names(directory: Path) -> list[str]:
    return [entry for entry in os.listdir(directory) if "." not in entry]


@pytest.fixture
def tight(busybox_file: Path, tmp_path: Path) -> Iterator[Sublet]:
    """A daemon whose root is a disk of 640 MB."""
    home, disk = Path(tempfile.mkdtemp(prefix="sublet-")), tmp_path / "disk"
    (home / "root").mkdir()
    disk.touch()
    os.truncate(disk, 640 << 20)
    call("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", disk)
    call("mount", "-o", "loop", disk, home / "root")
    sublet = at(home)
    sublet.ok("import", str(busybox_file), "--trust", "-t", IMAGE)
    try:
        yield sublet
    finally:
        if left := sublet.ok("ps", "-aq").split():
            sublet.ok("rm", "-f", *left)
        sublet.ok("daemon", "--stop")
        call("umount", home / "root")
        shutil.rmtree(home)


def test_the_host_has_no_room_for_memory(tight: Sublet) -> None:
    """The snapshot that was there stays good, and the VM goes on."""
    start(tight, "--disk", "32m")
    before = count(tight, "box")
    kept = tight.ok("snapshot", "--memory", "box")
    with filled(tight.root):
        for verb in (["snapshot", "--memory", "box"], ["hibernate", "box"], ["fork", "box"]):
            outcome = tight(*verb)
            assert (outcome.code, "No space left" in outcome.err) == (1, True), outcome
            assert state(tight, "box") == "running"
            assert count(tight, "box") >= before
    assert [s["id"] for s in tight.json("snapshots", "--json")] == [kept]
    assert tight("audit").code == 0
    tight.ok("rollback", "box", kept)
    assert count(tight, "box") >= before
    tight.clean()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another set-up of this project, whose kernels a test may change: its interpreter."""
    real, venv = Path(SUBLET).parent.parent, tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(os.path.realpath(sys.executable))
    shutil.copy(real / "pyvenv.cfg", venv)
    (venv / "lib").symlink_to(real / "lib")
    (venv / "libexec").mkdir()
    for program in (real / "libexec").iterdir():
        if program.name != "kernels":
            (venv / "libexec" / program.name).symlink_to(program)
    shutil.copytree(real / "libexec/kernels", venv / "libexec/kernels")
    return venv


@pytest.mark.slow
def test_another_kernel(own: Sublet, elsewhere: Path) -> None:
    """No template of the old one is used, but what it had in memory goes on, whatever has been
    installed or removed meanwhile; the old one is gone when nothing needs it any more."""
    start(own)
    own.ok("exec", "box", "sh", "-c", "echo kept > /mark; sync")
    taken = own.ok("snapshot", "--memory", "box")
    before = count(own, "box")
    own.ok("hibernate", "box")
    own.ok("daemon", "--stop")
    (kept,) = (own.root / "kernels").iterdir()
    (kept.parent / "6.1-0.partial").mkdir()  # a daemon was killed while it copied
    shutil.copytree(kept, kept.parent / "6.1-0123456789abcdef")
    for image in elsewhere.glob("libexec/kernels/*/initramfs"):
        with image.open("ab") as opened:
            opened.write(bytes(4096))
    there = replace(own, before=(str(elsewhere / "bin/python"),))
    assert there.ok("run", "--rm", *SMALL, IMAGE, "echo", "fine") == "fine"
    eventually(lambda: len(list(kept.parent.iterdir())) == 2, "what nothing names is gone")
    installed = elsewhere / "libexec/kernels"
    installed.rename(installed.with_name("away"))
    there.ok("wake", "box")
    assert before <= count(there, "box") < before + 600
    there.ok("fork", taken, "--name", "twin")
    assert before <= count(there, "twin") < before + 600
    there.ok("rollback", "box", taken)
    assert before <= count(there, "box") < before + 600
    assert there("run", "--rm", *SMALL, IMAGE, "true").code == 125
    installed.with_name("away").rename(installed)
    there.ok("rm", "-f", "box", "twin")
    there.ok("daemon", "--stop")
    assert there.ok("run", "--rm", *SMALL, IMAGE, "echo", "fine") == "fine"
    eventually(lambda: not kept.exists(), "the old kernel is gone")
    assert there("audit").code == 0
    there.ok("daemon", "--stop")


def test_a_kernel_that_is_gone(own: Sublet, elsewhere: Path) -> None:
    """What was in memory does not go on; its disk does."""
    start(own)
    own.ok("exec", "box", "sh", "-c", "echo kept > /mark; sync")
    own.ok("hibernate", "box")
    own.ok("daemon", "--stop")
    for image in [*own.root.glob("kernels/*/initramfs"), *elsewhere.glob("libexec/*/*/initramfs")]:
        with image.open("ab") as opened:
            opened.write(bytes(4096))
    there = replace(own, before=(str(elsewhere / "bin/python"),))
    outcome = there("wake", "box")
    assert (outcome.code, "sublet stop box" in outcome.err) == (1, True)
    assert state(there, "box") == "hibernated"
    there.ok("stop", "box")
    there.ok("start", "box")
    assert there.ok("exec", "box", "cat", "/mark") == "kept"
    there.ok("rm", "-f", "box")
    there.ok("daemon", "--stop")


@pytest.mark.slow
def test_a_guest_that_never_boots(own: Sublet, elsewhere: Path) -> None:
    for image in elsewhere.glob("libexec/kernels/*/initramfs"):
        os.truncate(image, 4096)
    own.ok("daemon", "--stop")
    there = replace(own, before=(str(elsewhere / "bin/python"),))
    outcome = there("run", *SMALL, "--name", "box", IMAGE, "true", timeout=300)
    assert outcome.code == 125
    assert "panic" in outcome.err.lower()  # the console's last words
    assert "Traceback" not in outcome.err
    assert there.json("ps", "-a", "--json") == []
    assert there("audit").code == 0
    there.ok("daemon", "--stop")


def test_two_daemons_after_one_vm(own: Sublet, tmp_path: Path) -> None:
    start(own)
    first = count(own, "box")
    second = replace(own, extra={**own.extra, "SUBLET_RUN": str(tmp_path / "run")})
    refused = subprocess.run(
        [SUBLET, "ps"], env={**own.env, **second.extra}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "to run a second one beside it" in refused.stderr
    assert count(own, "box") >= first


def test_a_killed_daemon_adopts_its_vms(own: Sublet) -> None:
    start(own, command=LOOP, name="loop")
    start(own)
    up(own, "loop")
    first, pid = count(own, "box"), qemu(own, "box")
    own.ok("pause", "loop")
    own.kill_daemon()
    assert count(own, "box") >= first
    assert qemu(own, "box") == pid
    assert state(own, "loop") == "paused"
    own.ok("unpause", "loop")
    own.ok("exec", "loop", "sh", "-c", "echo more > /proc/1/fd/1 || true")
    waiting = own.spawn("wait", "loop")
    own.ok("stop", "loop")
    assert waiting.communicate(timeout=60)[0] == "7\n"
    assert own.ok("logs", "loop").startswith("up")
    own.ok("restart", "-t", "0", "box")
    assert memory_of(own, "box") == []


def test_audit_finds_what_belongs_to_nobody(vm: Sublet) -> None:
    """A machine, a tap, a disk, a memory image and a template of no instance; --fix removes
    them, and nothing of one that lives."""
    found = start(vm)
    bridge = os.path.basename(os.readlink(f"/sys/class/net/{veth(found)}/master"))
    stray, home = secrets.token_hex(6), pool(vm)
    eventually(lambda: names(home / "templates"), "its template is kept, and others looked through")
    vm.ok("run", "--rm", *SMALL, IMAGE, "true")
    config = Config(root=vm.root, run=vm.run_dir)
    cgroups = Cgroups(config.identity)
    cgroups.create(stray, Size(1, 256 << 20, 0), 10)
    process = subprocess.Popen(["sleep", "1000"])
    for entrance in cgroups.procs_files(stray):
        Path(entrance).write_text(str(process.pid))
    call("ip", "tuntap", "add", veth(stray), "mode", "tap")
    call("ip", "link", "set", veth(stray), "master", bridge)
    (home / "instances" / stray / "memory-image").mkdir(parents=True)
    (home / "instances" / stray / "memory-image/memory").write_bytes(b"much")
    (home / "instances" / stray / "disk.img").write_bytes(b"disk")
    partial = home / "templates" / f"{secrets.token_hex(16)}.partial"
    partial.mkdir(parents=True)
    try:
        told = vm("audit", "--json")
        assert told.code == 1
        for what in (f"/{stray}", veth(stray), str(partial)):
            assert what in told.out
        vm.ok("audit", "--fix")
        assert vm("audit").code == 0
        assert process.wait(60) == -signal.SIGKILL
        assert not (home / "instances" / stray).exists()
        assert not partial.exists()
        count(vm, "box")
    finally:
        process.kill()
        with contextlib.suppress(AssertionError):
            call("ip", "link", "del", veth(stray))
