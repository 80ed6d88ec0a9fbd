"""A VM's memory: hibernate and wake, snapshots with memory, forks of running ones."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet, eventually
from imagelab import free_port
from vmhost import (
    COUNT,
    IMAGE,
    LOOP,
    SMALL,
    clock,
    count,
    daemon,
    gone,
    memory_of,
    qemu,
    row,
    state,
    up,
)


def start(vm: Sublet, *flags: str, command: tuple[str, ...] = COUNT, name: str = "box") -> str:
    return vm.ok("run", "-d", *SMALL, "--name", name, *flags, IMAGE, *command)


@pytest.fixture
def own(busybox_file: Path) -> Iterator[Sublet]:
    """A daemon that a test may kill."""
    with daemon(busybox_file) as sublet:
        yield sublet


def goes_on(vm: Sublet, name: str, before: int) -> None:
    """It counts, from where it was and not from 0 again, and not much further yet."""
    first = count(vm, name)
    assert before <= first < before + 6000
    eventually(lambda: count(vm, name) > first, "it goes on")


def answers(port: int) -> bool:
    """Whether the web server says hello."""
    with socket.socket() as client:
        client.settimeout(2)
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
            return b"hello" in client.makefile("rb").read()
        except OSError:
            return False


def test_hibernated_and_woken(vm: Sublet) -> None:
    port = free_port()
    serve = ("sh", "-c", f"mkdir /www; echo hello > /www/hello; httpd -h /www; {COUNT[2]}")
    start(vm, "-p", f"127.0.0.1:{port}:80", command=serve)
    eventually(lambda: answers(port), "the web server answers")
    pid, before, address = qemu(vm, "box"), count(vm, "box"), row(vm, "box")["address"]
    assert vm.ok("hibernate", "box") == "box"
    assert state(vm, "box") == "hibernated"
    assert gone(pid)
    assert not answers(port)
    assert vm("exec", "box", "true").code == 1
    assert vm("hibernate", "box").code == 1
    assert vm.ok("wake", "box") == "box"
    goes_on(vm, "box", before)
    assert (state(vm, "box"), row(vm, "box")["address"]) == ("running", address)
    assert clock(vm, "box") < 2
    eventually(lambda: answers(port), "the web server answers again")
    assert vm.ok("wake", "box") == "box"
    eventually(lambda: memory_of(vm, "box") == [], "its memory is gone")


def test_who_waits_does_not_notice(vm: Sublet) -> None:
    start(vm, command=LOOP)
    up(vm, "box")
    waiting = [vm.spawn("wait", "box")]
    vm.ok("hibernate", "box")
    waiting.append(vm.spawn("wait", "box"))
    vm.ok("start", "box")
    vm.ok("stop", "box")
    for process in waiting:
        assert process.communicate(timeout=60)[0] == "7\n"
    vm.ok("start", "box")
    vm.ok("hibernate", "box")
    late = vm.spawn("wait", "box")
    vm.ok("stop", "box")
    assert late.communicate(timeout=60)[0] == "137\n"


def test_a_paused_one_hibernates(vm: Sublet) -> None:
    start(vm)
    before = count(vm, "box")
    vm.ok("pause", "box")
    vm.ok("hibernate", "box")
    vm.ok("wake", "box")
    goes_on(vm, "box", before)


def test_stop_drops_the_memory(vm: Sublet) -> None:
    start(vm)
    vm.ok("exec", "box", "sh", "-c", "echo kept > /mark; sync")
    vm.ok("hibernate", "box")
    assert memory_of(vm, "box") != []
    vm.ok("update", "-m", "900g", "box")  # it holds nothing now, and whether there is room then
    vm.ok("stop", "box")
    refused(vm, "start", "box", code=1, says="900")  # its start is asked
    vm.ok("update", "-m", "128m", "box")
    assert (state(vm, "box"), memory_of(vm, "box")) == ("stopped", [])
    assert vm("wake", "box").code == 1
    vm.ok("start", "box")
    assert vm.ok("exec", "box", "cat", "/mark") == "kept"
    assert count(vm, "box") < 1000
    vm.ok("hibernate", "box")
    vm.ok("rm", "-f", "box")


def test_containers_have_no_memory_of_their_own(vm: Sublet) -> None:
    vm.ok("run", "-d", "--name", "box", IMAGE, *LOOP)
    for verb in (["hibernate", "box"], ["wake", "box"], ["snapshot", "--memory", "box"]):
        outcome = vm(*verb)
        assert outcome.code == 1
        assert "needs a VM" in outcome.err
    refused(vm, "hibernate", "box", code=1, says="needs a VM")


def test_woken_after_the_daemon_was_killed(own: Sublet) -> None:
    start(own)
    before = count(own, "box")
    own.ok("hibernate", "box")
    own.kill_daemon()
    assert state(own, "box") == "hibernated"
    waiting = own.spawn("wait", "box")
    own.ok("wake", "box")
    goes_on(own, "box", before)
    assert waiting.poll() is None
    own.ok("stop", "-t", "0", "box")
    assert waiting.communicate(timeout=60)[0] in ("143\n", "137\n"), "whichever comes first"
    own.ok("start", "box")
    count(own, "box")
    own.kill_daemon()
    goes_on(own, "box", before)
    eventually(lambda: memory_of(own, "box") == [], "its memory is gone")


def test_woken_after_the_host_went_down(own: Sublet) -> None:
    start(own)
    start(own, name="lost")
    own.ok("exec", "box", "sh", "-c", "echo kept > /mark")
    before = count(own, "box")
    own.ok("hibernate", "box")
    reboot(own)
    assert (state(own, "box"), state(own, "lost")) == ("hibernated", "stopped")
    own.ok("wake", "box")
    goes_on(own, "box", before)
    assert own.ok("exec", "box", "cat", "/mark") == "kept"
    assert clock(own, "box") < 2
    own.ok("start", "lost")
    own.ok("exec", "lost", "true")


def reboot(sublet: Sublet) -> None:
    """What is left of a daemon when its host has been switched off and on: ROOT."""
    machines = [qemu(sublet, r["name"]) for r in sublet.json("ps", "--json")]
    sublet.kill_daemon()
    for pid in machines:
        subprocess.run(["kill", "-9", str(pid)], check=True)
        eventually(lambda pid=pid: gone(pid), "the machine ends")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [p for p in (line.split(" ")[4] for line in mounts) if p.startswith(f"{sublet.home}/")]
    for point in reversed(points):
        subprocess.run(["umount", "-l", point], check=True)
    shutil.rmtree(sublet.run_dir)


def test_snapshots_of_the_disk_alone(vm: Sublet) -> None:
    start(vm)
    vm.ok("exec", "box", "sh", "-c", "echo one > /mark")  # not synced: taking one does that
    taken = vm.ok("snapshot", "box")
    count(vm, "box")
    vm.ok("exec", "box", "sh", "-c", "echo two > /mark; echo here > /dev/shm/memory")
    vm.ok("rollback", "box", taken)
    assert vm.ok("exec", "box", "cat", "/mark") == "one"
    assert vm("exec", "box", "test", "-e", "/dev/shm/memory").code == 1, "it began anew"
    fork = vm.ok("fork", taken, "--name", "twin")
    assert row(vm, "twin")["id"] == fork
    if state(vm, "twin") != "running":
        vm.ok("start", "twin")
    assert vm.ok("exec", "twin", "cat", "/mark") == "one"


def test_snapshots_with_memory(vm: Sublet) -> None:
    start(vm)
    vm.ok("exec", "box", "sh", "-c", "echo one > /mark")
    first = count(vm, "box")
    taken = vm.ok("snapshot", "--memory", "box")
    goes_on(vm, "box", first)
    assert [s["memory"] for s in vm.json("snapshots", "--json")] == [True]
    vm.ok("exec", "box", "sh", "-c", "echo two > /mark; sync; echo 1000000 > /dev/shm/far")
    vm.ok("rollback", "box", taken)
    assert vm.ok("exec", "box", "cat", "/mark") == "one"
    assert vm("exec", "box", "test", "-e", "/dev/shm/far").code == 1
    goes_on(vm, "box", first)
    vm.ok("fork", taken, "--name", "twin")
    assert vm.ok("exec", "twin", "cat", "/mark") == "one"
    goes_on(vm, "twin", first)
    vm.ok("stop", "-t", "0", "box")
    vm.ok("rollback", "box", taken)
    goes_on(vm, "box", first)
    stopped = vm.ok("create", *SMALL, IMAGE, "true")
    refused(vm, "snapshot", "--memory", stopped, code=1, says="only a running VM")


def test_a_rollback_does_not_part_memory_from_its_disk(vm: Sublet) -> None:
    """And says nothing of copying, as nothing that is refused does."""
    start(vm)
    vm.ok("exec", "box", "sh", "-c", "echo one > /mark")
    taken = vm.ok("snapshot", "box")
    vm.ok("exec", "box", "sh", "-c", "echo two > /mark")
    before = count(vm, "box")
    vm.ok("hibernate", "box")
    told = refused(vm, "rollback", "box", taken, code=1, says="memory does not go with other files")
    told = told.err + refused(vm, "snapshot", "--memory", "box", code=1).err
    told += refused(vm, "fork", taken, "-p", "1:1/sctp", code=1).err
    assert "Copying" not in told
    vm.ok("wake", "box")
    goes_on(vm, "box", before)
    assert vm.ok("exec", "box", "cat", "/mark") == "two"
    assert "Copying" in vm("rollback", "box", taken).err
    assert vm.ok("exec", "box", "cat", "/mark") == "one"


def identity(vm: Sublet, name: str) -> dict[str, str]:
    """What must not be the same in two machines."""
    script = {
        "host": "hostname",
        "file": "cat /etc/hostname",
        "machine": "cat /etc/machine-id",
        "mac": "cat /sys/class/net/eth0/address",
        "address": "ip -4 -o addr show eth0 | awk '{print $4}'",
        "random": "head -c 16 /dev/urandom | md5sum",
    }
    return {key: vm.ok("exec", name, "sh", "-c", text) for key, text in script.items()}


def test_a_running_vm_is_forked(vm: Sublet) -> None:
    start(vm)
    before = count(vm, "box")
    fork = vm.ok("fork", "box", "--name", "twin")
    goes_on(vm, "twin", before)
    goes_on(vm, "box", before)
    one, other = identity(vm, "box"), identity(vm, "twin")
    assert [key for key in one if one[key] == other[key]] == []
    assert other["host"] == other["file"] == fork
    assert other["address"].split("/")[0] == row(vm, "twin")["address"]
    assert clock(vm, "twin") < 2
    assert "bytes from" in vm.ok("exec", "twin", "ping", "-c", "1", str(row(vm, "box")["address"]))
    told = [e for e in vm.json("events", "--json") if e["type"] == "instance.forked"]
    assert 0 < float(told[-1]["detail"]["paused_ms"]) < 60_000
    vm.ok("rm", "-f", "box")
    goes_on(vm, "twin", before)
    assert vm.ok("exec", "twin", "sh", "-c", "echo x > /y; cat /y") == "x"


def test_a_fork_of_a_fork_and_after_waking(vm: Sublet) -> None:
    start(vm)
    before = count(vm, "box")
    vm.ok("fork", "box", "--name", "twin")
    vm.ok("hibernate", "twin")
    vm.ok("wake", "twin")
    vm.ok("fork", "twin", "--name", "third")
    for name in ("box", "twin", "third"):
        goes_on(vm, name, before)
    vm.ok("hibernate", "box")
    assert vm("fork", "box").code in (0, 1)
